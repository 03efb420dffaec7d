package redisbroker

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// The permissions that a user of this package needs. All of them are tried when a connection begins, and Permissions
// returns them as a rule; a command that is used anywhere belongs here.

// scriptCommands are run by the scripts, on the keys of a channel of each kind: KEYS[1] is its stream, KEYS[2] the key
// of a message that is stored once.
var scriptCommands = []string{
	`'TIME'`,
	`'XADD', KEYS[1], 'MAXLEN', '~', '1', '1-*', 'probe', ''`,
	`'XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1`,
	`'XRANGE', KEYS[1], '-', '+', 'COUNT', 1`,
	`'PEXPIRE', KEYS[1], 1000`,
	`'DEL', KEYS[1]`,
	`'SET', KEYS[2], '', 'PX', 1000`,
	`'GET', KEYS[2]`,
}

// connectionCommands are run by the connections themselves.
var connectionCommands = []string{
	"info", "script|load", "evalsha", "subscribe", "unsubscribe", "publish",
}

// channelKind is a kind of channel that nodes use.
type channelKind struct {
	prefix string
	// stored: messages are stored on it; else they are only published, by a script with the channel as its key.
	stored bool
}

// channelKinds returns the kinds of a deployment's channels. prefix is the prefix of broker.WithPrefix, or "".
func channelKinds(prefix string) []channelKind {
	if prefix != "" {
		prefix += "."
	}
	return []channelKind{{prefix + "upload:", true}, {prefix + "shoal:", false}}
}

// clusterCommands are run by the connections to a cluster, in addition.
var clusterCommands = []string{"ssubscribe", "sunsubscribe", "spublish", "cluster|slots"}

// Permissions returns the rule, as for ACL SETUSER, that a user needs for nodes that share uploads through a single
// server: without one of its parts Run fails and names it. A URL with the number of a database other than 0 needs
// +select in addition. prefix is Options.ChannelPrefix.
func Permissions(prefix string) string { return permissions(prefix, single) }

// permissions returns the rule for servers of a mode. Each node of a cluster has users of its own.
func permissions(prefix string, m mode) string {
	rule := []string{"~" + streamPrefix + "*", "~" + oncePrefix + "*"}
	for _, kind := range channelKinds(prefix) {
		if !kind.stored {
			rule = append(rule, "~"+kind.prefix+"*")
		}
	}
	for _, kind := range channelKinds(prefix) {
		rule = append(rule, "&"+kind.prefix+"*")
	}
	rule = append(rule, "&"+positionPrefix+"*", "&"+probePrefix+"*")
	for _, command := range connectionCommands {
		rule = append(rule, "+"+command)
	}
	for _, call := range scriptCommands {
		rule = append(rule, "+"+commandOf(call))
	}
	if m == cluster {
		for _, command := range clusterCommands {
			rule = append(rule, "+"+command)
		}
	}
	return strings.Join(rule, " ")
}

// commandOf returns the command of a call in scriptCommands.
func commandOf(call string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(call, "'"), "'")
	return strings.ToLower(name)
}

// permissionScriptText runs scriptCommands, and publishes on the channel of a channel's positions, ARGV[1]. It returns
// the commands that failed with their errors. It publishes nothing on the channel itself, which listeners of other
// programs receive: that the channel is permitted shows the subscription.
func permissionScriptText(publish string) string {
	var b strings.Builder
	b.WriteString(`
local failed = {}
local function try(what, ...)
	local result = redis.pcall(...)
	if type(result) == 'table' and result.err then
		failed[#failed + 1] = what
		failed[#failed + 1] = result.err
	end
end
`)
	for _, call := range scriptCommands {
		fmt.Fprintf(&b, "try('%s', %s)\n", commandOf(call), call)
	}
	fmt.Fprintf(&b, `redis.pcall('DEL', KEYS[1], KEYS[2])
try('%[1]s to %[2]s*', '%[1]s', ARGV[1], '')
return failed`, strings.ToLower(publish), positionPrefix)
	return b.String()
}

// tryPermissions tries everything that this node will do with channels of each kind. The error names the missing
// permission.
func (s *server) tryPermissions(ctx context.Context, l *commandConn, p *pubsub) error {
	for _, kind := range channelKinds(s.broker.opt.ChannelPrefix) {
		if err := s.tryKind(ctx, l, p, kind); err != nil {
			return err
		}
	}
	return nil
}

// tryKind is tryPermissions for a kind of channel.
func (s *server) tryKind(ctx context.Context, l *commandConn, p *pubsub, kind channelKind) error {
	channel := s.probeName(kind.prefix, "probe."+s.broker.id)
	if err := p.subscribe(ctx, []string{channel}); err != nil {
		return s.missingPermission(err, "subscribe to "+kind.prefix+"*, "+positionPrefix+"*")
	}
	if err := p.unsubscribe(ctx, []string{channel}); err != nil {
		return s.missingPermission(err, "unsubscribe from "+kind.prefix+"*")
	}
	if !kind.stored {
		if err := l.client.Do(ctx, l.send(publishScript, channel, nil)).Error(); err != nil {
			return s.missingPermission(s.scriptError(err, s.broker.scripts(l.term)[publishScript]),
				"publish to "+kind.prefix+"*, which are keys and channels of a script")
		}
		return nil
	}
	naming := s.broker.naming
	command := l.client.B().Evalsha().Sha1(l.sha[permissionScript]).Numkeys(2).
		Key(naming.key(channel), naming.once(channel, "probe")).
		Arg(naming.positionChannel(channel)).Build()
	failed, err := l.client.Do(ctx, command).AsStrSlice()
	if err != nil {
		return s.missingPermission(err, "run a script on keys "+streamPrefix+"*, "+oncePrefix+"*")
	}
	for pair := range slices.Chunk(failed, 2) { // a command and its error
		switch text := pair[len(pair)-1]; {
		case strings.Contains(text, "called from script"): // of an unknown command
			return fatalf("redisbroker: %s does not know the command %s (%s): do not rename or disable it", s.addr,
				strings.ToLower(pair[0]), text)
		case isDenied(text):
			return fatalf("redisbroker: %s lacks a permission for nodes: %s (%s): allow it by ACL SETUSER; all that is needed "+
				"is: %s", s.addr, strings.ToLower(pair[0]), text, s.broker.permissions())
		}
	}
	return nil
}

// permissions returns the rule that a user of the broker's servers needs.
func (b *Broker) permissions() string {
	rule := permissions(b.opt.ChannelPrefix, b.target.mode)
	if b.target.db != 0 {
		rule += " +select"
	}
	return rule
}

// missingPermission adds the tried operation to an error of a trial that means a missing permission.
func (s *server) missingPermission(err error, tried string) error {
	if hasMoved(errorCode(err)) {
		return nil // the slot has moved to another server of the cluster, which is tried by itself
	}
	if isFatal(err) || !isPermissionError(err) {
		return err
	}
	return fatalf("redisbroker: %s lacks a permission for nodes, to %s: %s: allow it by ACL SETUSER; all that is needed "+
		"is: %s", s.addr, tried, errorText(err), s.broker.permissions())
}

// isDenied reports whether the text of an error within a script says that a permission is missing.
func isDenied(text string) bool {
	return slices.ContainsFunc([]string{"NOPERM", "ACL failure", "The user executing the script", "permission"},
		func(word string) bool { return strings.Contains(text, word) })
}
