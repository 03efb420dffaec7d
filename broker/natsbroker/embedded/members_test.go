package embedded_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/internal/testlog"
)

// TestServer_MembersAtOtherAddressesAreNamed: servers that return with their folders at other addresses are other
// members, which have no majority. Ready says so.
func TestServer_MembersAtOtherAddressesAreNamed(t *testing.T) {
	const size = 2
	folders := []string{t.TempDir(), t.TempDir()}
	run := func() (servers []*embedded.Server) {
		addrs := freeAddrs(t, size)
		for i := range size {
			opt := cluster(addrs, i, "secret")
			opt.StoreDir = folders[i]
			servers = append(servers, start(t, opt))
		}
		return servers
	}
	before := run()
	for _, s := range before {
		brokertest.Eventually(t, "Ready", s.Ready)
	}
	for _, s := range before {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range run() {
		brokertest.Eventually(t, "Ready that names the former members", func() error {
			err := s.Ready()
			if errors.Is(err, embedded.ErrBehind) && strings.Contains(err.Error(), "2 members that are not among the routes") {
				return nil
			}
			return fmt.Errorf("Ready returned %w", err)
		})
	}
}

// TestServer_ReplacedMemberIsWarnedOf: a server at another address does not replace the member that is gone, which
// counts for the majority all the same. A server that learns of the other address warns of that.
func TestServer_ReplacedMemberIsWarnedOf(t *testing.T) {
	const size, warning = 3, "members that are not among the routes"
	addrs := freeAddrs(t, size+1)
	var log testlog.Buffer
	logged := slog.New(slog.NewTextHandler(&log, nil))
	var servers []*embedded.Server
	for i := range size {
		opt := cluster(addrs[:size], i, "secret")
		opt.Logger = logged
		servers = append(servers, start(t, opt))
	}
	for _, s := range servers {
		brokertest.Eventually(t, "Ready", s.Ready)
	}
	if err := servers[2].Close(); err != nil {
		t.Fatal(err)
	}
	if log.Count(warning) > 0 {
		t.Error("servers warn although all members are among the routes")
	}
	opt := cluster([]string{addrs[0], addrs[1], addrs[3]}, 2, "secret")
	opt.Logger = logged
	s := start(t, opt)
	brokertest.Eventually(t, "Ready of the other server", s.Ready)
	if err := s.Ready(); err != nil || log.Count(warning) != 1 {
		t.Errorf("the server warns %d times, Ready returns %v", log.Count(warning), err)
	}
}
