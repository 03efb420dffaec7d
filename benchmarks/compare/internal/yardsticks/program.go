package yardsticks

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// The client of NATS and its version.
const (
	NATSModule  = "github.com/nats-io/natscli"
	NATSVersion = "v0.5.1"
	RedisModule = "redis-benchmark" // as it is installed
)

// NATSProgram returns the path of the client of NATS, see Install.
func NATSProgram(ctx context.Context, progress io.Writer) (string, error) {
	return Install(ctx, progress, NATSModule+"/nats", "nats", NATSVersion)
}

// Installed returns the path at which a program lies in the user's cache, and whether it is there.
func Installed(command, version string) (program string, ok bool) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false
	}
	program = filepath.Join(cache, "shoal-compare", command+"-"+version, command)
	_, err = os.Stat(program)
	return program, err == nil
}

// Install returns the path of a program of a Go package, which is built into the user's cache if it is not there yet, as
// progress then says.
func Install(ctx context.Context, progress io.Writer, path, command, version string) (string, error) {
	program, ok := Installed(command, version)
	if ok || program == "" {
		return program, nil
	}
	fmt.Fprintf(progress, "installing %s %s, which takes minutes\n", path, version)
	install := exec.CommandContext(ctx, "go", "install", path+"@"+version)
	install.Env = append(os.Environ(), "GOBIN="+filepath.Dir(program))
	if said, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("yardsticks: %s: %w: %.500s", install, err, said)
	}
	return program, nil
}

// RedisVersion returns the version of redis-benchmark.
func RedisVersion(ctx context.Context) string {
	said, err := exec.CommandContext(ctx, "redis-benchmark", "--version").Output()
	if err != nil {
		return "unknown"
	}
	return string(said[:max(len(said)-1, 0)])
}
