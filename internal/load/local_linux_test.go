package load

import (
	"net"
	"os"
	"slices"
	"testing"
)

func TestOpen_FromLocalAddresses(t *testing.T) {
	eachKind(t, func(t *testing.T, p *peer) {
		o := p.options(4)
		o.LocalAddrs = []string{"127.0.0.2", "127.0.0.3"}
		p.open(o)
		var hosts []string
		for _, address := range p.from {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				t.Error(err)
			}
			hosts = append(hosts, host)
		}
		slices.Sort(hosts)
		if !slices.Equal(hosts, []string{"127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"}) {
			t.Errorf("connected from %v", hosts)
		}
	})
}

func TestFleet_CloseLeavesNoOpenFile(t *testing.T) {
	p := newPeer(t, false)
	before := openFiles(t)
	f := p.open(p.options(10))
	f.Close()
	p.waitFor(func() bool { return openFiles(t) <= before })
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
