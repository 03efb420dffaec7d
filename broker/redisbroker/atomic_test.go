package redisbroker_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// TestPermissions_MissingOneHasNoEffect: a call that a permission is missing for does nothing at all, whichever it is,
// so that a repetition with the same key publishes once; it keeps stored messages, also of an earlier term.
func TestPermissions_MissingOneHasNoEffect(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "node", "on", ">secret", "~*", "&*", "+@all")
	opt := options(server)
	opt.URL = "redis://node:secret@" + server.Addr
	n := join(t, opt)
	watching := join(t, options(server))
	once := broker.Once{Key: "key", Digest: "digest"}
	calls := map[string]func(channel string) error{
		"store": func(channel string) error {
			_, err := n.Store(t.Context(), channel, []byte("new"))
			return err
		},
		"once": func(channel string) error {
			_, _, err := n.StoreOnce(t.Context(), channel, []byte("new"), once)
			return err
		},
		"forget": func(channel string) error { return n.Forget(t.Context(), channel) },
	}
	rules := map[string][]string{
		"-xadd": {"+xadd"}, "-pexpire": {"+pexpire"}, "-publish": {"+publish"}, "-set": {"+set"},
		"~shoal.once:*": {"~*"}, "&shoal*": {"allchannels"}, "&upload:*": {"allchannels"},
	}
	streams := map[string]string{
		"ours": token(server) + "1700000000000", "of another term": "0123456789abcdef1700000000000", "none": "",
	}
	var refused []string
	for rule, undo := range rules {
		for name, call := range calls {
			for kind, field := range streams {
				channel := strings.NewReplacer(" ", "", "&", "", "~", "", "*", "").Replace("upload:" + rule + name + kind)
				key := "shoal.kept:" + channel
				if field != "" {
					server.Do("XADD", key, "1700000000000000-7", field, "old")
				}
				subscribe(t, watching, channel)
				before := server.Do("XRANGE", key, "-", "+")
				switch rule[0] {
				case '~':
					server.Do("ACL", "SETUSER", "node", "resetkeys", rule)
				case '&':
					server.Do("ACL", "SETUSER", "node", "resetchannels", rule)
				default:
					server.Do("ACL", "SETUSER", "node", rule)
				}
				err := call(channel)
				server.Do(append([]string{"ACL", "SETUSER", "node"}, undo...)...)
				if err == nil {
					continue // it needs no such permission
				}
				refused = append(refused, channel)
				after := server.Do("XRANGE", key, "-", "+")
				if errors.Is(err, broker.ErrUnavailable) || after != before {
					t.Errorf("without %s, %s on a stream that is %s: %v, and stored is %s, before %s", rule, name, kind, err, after, before)
				}
			}
		}
	}
	subscribe(t, watching, "upload:end")
	store(t, watching, "upload:end", "end")
	watching.Await(t, "the end", func() bool { return watching.last("upload:end") == "end" })
	for _, channel := range refused {
		if got := watching.Messages(channel); len(got) > 0 {
			t.Errorf("refused calls sent %+v", got)
		}
	}
}

// TestBroker_FullMemoryRefusesNoEpoch: a server without memory still begins epochs: Forget makes room, and entries of
// an earlier term can be read.
func TestBroker_FullMemoryRefusesNoEpoch(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	subscribe(t, n, "upload:old")
	old := "1700000000000000"
	stamp := server.Do("EVAL", "return redis.call('TIME')[1] .. '000'", "0")
	server.Do("XADD", "shoal.kept:upload:old", old+"-7", "0123456789abcdef"+stamp, "one")
	before := store(t, n, "upload:x", "one")
	server.Do("CONFIG", "SET", "maxmemory", "1")
	if k := history(t, n, "upload:old"); k.Epoch == old || describe(k) != "1 above 0: 1=one" {
		t.Errorf("what was of an earlier term is %s in epoch %q", describe(k), k.Epoch)
	}
	if err := n.Forget(t.Context(), "upload:x"); err != nil {
		t.Errorf("Forget: %v", err)
	}
	if k := history(t, n, "upload:x"); k.Epoch == before.Epoch || describe(k) != "0 above 0:" {
		t.Errorf("after Forget the history is %s in epoch %q", describe(k), k.Epoch)
	}
}

// TestCluster_EpochsBeginWhileTheSlotMoves: a server that moves a slot takes writes to the keys that it still has, but
// would refuse to create a key that was deleted.
func TestCluster_EpochsBeginWhileTheSlotMoves(t *testing.T) {
	servers := redistest.Cluster(t, 3, 0)
	n := join(t, clusterOptions(servers))
	x, y := "upload:{x}1", "upload:{x}2"
	subscribe(t, n, x, y)
	before := store(t, n, x, "one")
	from := slices.IndexFunc(servers, func(s *redistest.Server) bool {
		_, err := s.Try("EXISTS", x)
		return err == nil
	})
	slot, target := servers[0].Do("CLUSTER", "KEYSLOT", x), servers[(from+1)%len(servers)].Do("CLUSTER", "MYID")
	keys := servers[from].Do("CLUSTER", "GETKEYSINSLOT", slot, "10")
	other := strings.Replace(strings.Trim(keys, "[]"), x, y, 1)
	servers[from].Do("XADD", other, "1700000000000000-7", "0123456789abcdef1700000000000", "old")
	servers[from].Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	if at := store(t, n, y, "two"); at.Offset != 2 {
		t.Errorf("a message after one of another term is at %v, want offset 2", at)
	}
	if err := n.Forget(t.Context(), x); err != nil {
		t.Errorf("Forget: %v", err)
	}
	if at := store(t, n, x, "two"); at.Epoch == before.Epoch || at.Offset != 1 {
		t.Errorf("after Forget a message is at %v, want offset 1 of an epoch other than %q", at, before.Epoch)
	}
}
