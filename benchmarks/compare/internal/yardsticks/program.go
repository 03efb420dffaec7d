package yardsticks

import (
	"context"
	"fmt"
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

// NATSProgram returns the path of the client of NATS, which is built into the user's cache if it is not there yet.
func NATSProgram(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("yardsticks: %w", err)
	}
	folder := filepath.Join(cache, "shoal-compare", NATSVersion)
	program := filepath.Join(folder, "nats")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	install := exec.CommandContext(ctx, "go", "install", NATSModule+"/nats@"+NATSVersion)
	install.Env = append(os.Environ(), "GOBIN="+folder)
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
