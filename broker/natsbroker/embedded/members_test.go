package embedded_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
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
