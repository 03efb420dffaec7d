package main

import (
	"context"

	"github.com/compose-spec/compose-go/v2/cli"
)

// lintCompose does the work of docker compose config: the schema, interpolation and references between services.
func lintCompose(ctx context.Context, path string) ([]string, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithConsistency(true), cli.WithInterpolation(true))
	if err != nil {
		return nil, err
	}
	_, err = options.LoadProject(ctx)
	return nil, err
}
