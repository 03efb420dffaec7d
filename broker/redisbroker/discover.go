package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// serverSlots is a server with its slots.
type serverSlots struct {
	addr   string
	ranges []slotRange
}

// slotRange is the slots from first to last.
type slotRange struct{ first, last int64 }

// discover returns the masters, and the server that has named them. It queries the one that named them before, if there
// is any, then the servers of the URL, and in a cluster the known ones before these.
func (b *Broker) discover(ctx context.Context, before string, known []string) ([]serverSlots, string, error) {
	switch b.target.mode {
	case sentinel:
		as := login{b.target.sentinelUser, b.target.sentinelPassword}
		return b.queryAny(ctx, before, b.target.addrs, as, b.querySentinel)
	case cluster:
		return b.queryAny(ctx, before, slices.Concat(known, b.target.addrs), b.target.login, queryCluster)
	default:
		return []serverSlots{{addr: b.target.addrs[0]}}, "", nil
	}
}

// queryAny queries servers one after the other, first if that is given before the others, until one answers. It returns
// the address of that one.
func (b *Broker) queryAny(
	ctx context.Context, first string, addrs []string, as login,
	ask func(context.Context, rueidis.Client, string) ([]serverSlots, error),
) (parts []serverSlots, by string, err error) {
	if first != "" {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(addr string) bool { return addr == first })
		addrs = slices.Insert(addrs, 0, first)
	}
	for _, addr := range addrs {
		if parts, err = b.queryOne(ctx, addr, as, ask); err == nil || ctx.Err() != nil {
			return parts, addr, err
		}
	}
	return nil, "", err
}

func (b *Broker) queryOne(
	ctx context.Context, addr string, as login, ask func(context.Context, rueidis.Client, string) ([]serverSlots, error),
) ([]serverSlots, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	client, err := b.dial(ctx, addr, as, 0)
	if err != nil {
		return nil, b.connectError(addr, err)
	}
	defer client.Close()
	parts, err := ask(ctx, client, addr)
	return parts, b.connectError(addr, err)
}

// querySentinel asks a sentinel which server is the master.
func (b *Broker) querySentinel(ctx context.Context, client rueidis.Client, _ string) ([]serverSlots, error) {
	answer, err := client.Do(ctx, client.B().SentinelGetMasterAddrByName().Master(b.target.master).Build()).AsStrSlice()
	switch {
	case rueidis.IsRedisNil(err) || err == nil && len(answer) != 2:
		return nil, fmt.Errorf("the sentinel knows no master named %q", b.target.master)
	case err != nil:
		return nil, err
	}
	return []serverSlots{{addr: net.JoinHostPort(answer[0], answer[1])}}, nil
}

// queryCluster asks a node for the slots of all nodes.
func queryCluster(ctx context.Context, client rueidis.Client, addr string) ([]serverSlots, error) {
	rows, err := client.Do(ctx, client.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		if errorCode(err) != "" && strings.Contains(err.Error(), "cluster support disabled") {
			return nil, fatalf("redisbroker: %s is no node of a cluster (%s): the URL must begin with redis://",
				addr, errorText(err))
		}
		return nil, err
	}
	asked, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ranges := make(map[string][]slotRange)
	for _, row := range rows {
		owner, r, err := readSlots(row, asked)
		if err != nil {
			return nil, err
		}
		ranges[owner] = append(ranges[owner], r)
	}
	if len(ranges) == 0 {
		return nil, errors.New("the cluster has given its slots to no server yet")
	}
	var parts []serverSlots
	for owner, of := range ranges {
		parts = append(parts, serverSlots{addr: owner, ranges: of})
	}
	return parts, nil
}

// readSlots reads one row of the answer of CLUSTER SLOTS: the first and the last slot, and then the servers, the master
// first. One that does not know how it is reached from outside leaves out its host: then it is the one we asked.
func readSlots(row rueidis.RedisMessage, asked string) (addr string, r slotRange, err error) {
	malformed := errors.New("what CLUSTER SLOTS says cannot be read")
	fields, err := row.ToArray()
	if err != nil || len(fields) < 3 {
		return "", r, malformed
	}
	master, err := fields[2].ToArray()
	if err != nil || len(master) < 2 {
		return "", r, malformed
	}
	first, errFirst := fields[0].AsInt64()
	last, errLast := fields[1].AsInt64()
	port, errPort := master[1].AsInt64()
	if errFirst != nil || errLast != nil || errPort != nil || first < 0 || last >= slots {
		return "", r, malformed
	}
	host, err := master[0].ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		return "", r, malformed
	}
	if host == "" || host == "?" {
		host = asked
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10)), slotRange{first, last}, nil
}
