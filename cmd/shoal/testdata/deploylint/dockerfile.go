package main

import (
	"context"
	"os"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	digest "github.com/opencontainers/go-digest"
)

// lintDockerfile does the work of docker build --check: BuildKit's parser and rules.
func lintDockerfile(ctx context.Context, path string) (problems []string, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // named by the caller
	if err != nil {
		return nil, err
	}
	_, err = dockerfile2llb.Dockerfile2LLB(ctx, text, dockerfile2llb.ConvertOpt{
		MetaResolver: offline{},
		Warn: func(rule, _, _, message string, _ []parser.Range) {
			problems = append(problems, rule+": "+message)
		},
	})
	return problems, err
}

// offline stands for base images without fetching them.
type offline struct{}

func (offline) ResolveImageConfig(
	_ context.Context, ref string, _ sourceresolver.Opt,
) (string, digest.Digest, []byte, error) {
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers"}}`)
	return ref, digest.FromBytes(config), config, nil
}
