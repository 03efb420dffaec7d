// Command shoal runs the server and the small tools around it: see shoal --help.
package main

import (
	"context"
	"os"
)

// version is set by the linker for a release. If it is empty, the version of the module is used.
var version string

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
