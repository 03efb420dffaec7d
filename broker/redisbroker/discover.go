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

// part is a server with its slots.
type part struct {
	addr   string
	ranges []slotRange
}

// slotRange is the slots from first to last.
type slotRange struct{ first, last int64 }

// discover finds out which servers take messages. It asks those of the URL, and in a cluster known ones first.
func (b *Broker) discover(ctx context.Context, known []string) ([]part, error) {
	switch b.target.mode {
	case sentinel:
		return b.askAny(ctx, b.target.addrs, login{b.target.sentinelUser, b.target.sentinelPassword}, b.askSentinel)
	case cluster:
		return b.askAny(ctx, slices.Concat(known, b.target.addrs), b.target.login, askCluster)
	default:
		return []part{{addr: b.target.addrs[0]}}, nil
	}
}

// askAny asks servers one after the other, until one answers.
func (b *Broker) askAny(
	ctx context.Context, addrs []string, as login, ask func(context.Context, rueidis.Client, string) ([]part, error),
) (parts []part, err error) {
	for _, addr := range addrs {
		if parts, err = b.askOne(ctx, addr, as, ask); err == nil || ctx.Err() != nil {
			return parts, err
		}
	}
	return nil, err
}

func (b *Broker) askOne(
	ctx context.Context, addr string, as login, ask func(context.Context, rueidis.Client, string) ([]part, error),
) ([]part, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	client, err := b.dial(ctx, addr, as, 0)
	if err != nil {
		return nil, whileConnecting(addr, err)
	}
	defer client.Close()
	parts, err := ask(ctx, client, addr)
	return parts, whileConnecting(addr, err)
}

// askSentinel asks a sentinel which server is the master.
func (b *Broker) askSentinel(ctx context.Context, client rueidis.Client, _ string) ([]part, error) {
	answer, err := client.Do(ctx, client.B().SentinelGetMasterAddrByName().Master(b.target.master).Build()).AsStrSlice()
	switch {
	case rueidis.IsRedisNil(err) || err == nil && len(answer) != 2:
		return nil, fmt.Errorf("the sentinel knows no master named %q", b.target.master)
	case err != nil:
		return nil, err
	}
	return []part{{addr: net.JoinHostPort(answer[0], answer[1])}}, nil
}

// askCluster asks a node which of them has which slots.
func askCluster(ctx context.Context, client rueidis.Client, addr string) ([]part, error) {
	rows, err := client.Do(ctx, client.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		if kind(err) != "" && strings.Contains(err.Error(), "cluster support disabled") {
			return nil, fatalf("redisbroker: %s is no node of a cluster (%s): the URL must begin with redis://", addr, said(err))
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
	var parts []part
	for owner, of := range ranges {
		parts = append(parts, part{addr: owner, ranges: of})
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
