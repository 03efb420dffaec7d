//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// startBroker starts the broker and returns the arguments of each node by its index, and a function that ends it.
func (c config) startBroker(ctx context.Context, folder string) (args func(int) []string, stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, command := range running {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	}
	begin := func(name string, words ...string) error {
		command := exec.Command(name, words...) // given by the user of this command
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := command.Start(); err != nil {
			return err
		}
		running = append(running, command)
		return nil
	}
	redis := func(port string, more ...string) error {
		own := filepath.Join(folder, "redis"+port)
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		words := append([]string{
			"--port", port, "--bind", gateway, "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", own,
		}, more...)
		if err := begin("redis-server", words...); err != nil {
			return fmt.Errorf("-broker %s needs Redis: install redis-server: %w", c.broker, err)
		}
		return poll(ctx, "Redis answers", func() bool {
			return execute(ctx, "redis-cli", "-h", gateway, "-p", port, "ping") == nil
		})
	}
	same := func(words ...string) func(int) []string { return func(int) []string { return words } }
	switch c.broker {
	case "redis":
		err = redis("7000")
		args = same("--broker=redis://" + gateway + ":7000")
	case "redis-cluster":
		args = same("--broker=redis+cluster://" + gateway + ":7001," + gateway + ":7002")
		create := []string{"--cluster-yes", "--cluster", "create"}
		for _, port := range []string{"7001", "7002", "7003"} {
			if err = redis(port, "--cluster-enabled", "yes"); err != nil {
				break
			}
			create = append(create, gateway+":"+port)
		}
		if err == nil {
			err = execute(ctx, "redis-cli", create...)
		}
	case "nats":
		err = begin(c.natsServer, "-js", "-sd", filepath.Join(folder, "nats"), "-a", gateway, "-p", "4222")
		args = same("--broker=nats://" + gateway + ":4222")
	case "nats-embedded":
		args = embedded
	default:
		err = fmt.Errorf("-broker is %q, want redis, redis-cluster, nats or nats-embedded", c.broker)
	}
	if err != nil {
		stop()
	}
	return args, stop, err
}

// embedded returns the arguments of a node that is a NATS server itself.
func embedded(index int) []string {
	args := []string{"--broker=nats-embedded", "--cluster-secret=" + secret, "--cluster-addr=" + nodeHost(index) + ":6222"}
	for i := range 3 {
		args = append(args, "--cluster-route="+nodeHost(i)+":6222")
	}
	return args
}
