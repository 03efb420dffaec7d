package redisbroker

import (
	"fmt"
	"strings"
	"time"
)

// script is one of the scripts that execute several commands in one atomic step.
type script int

const (
	storeScript script = iota
	readScript
	forgetScript
	touchScript
	publishScript
	onceScript
	knownScript
	permissionScript
	termScript
	scriptCount
)

// The history of a channel is a stream. Its entries' ids are epoch-offset: the epoch is when it began, in
// microseconds, and the offset counts from 1. An entry has one field; its name is the token of the server's term
// that wrote it, and after that when, in milliseconds; its value is the payload. An entry without a time is no
// message: it only holds a position, of a stream that is empty but has to have one, or another program has added it.
//
// A token stands for a server's term as master: from its start or promotion to its end. A server that restarts with
// old data, or was promoted before it had the newest messages, would use offsets again that
// clients have seen with other messages. So a script that finds entries of another term carries them over
// into a new epoch.
//
// The token is a part of the scripts' text, and thereby of their names: a restarted server does not
// know them, and says so before anything is done. A server that was promoted still knows those of its earlier term,
// and a node sends them until it notices: they replace no epoch, but make the node renew them.

const scriptHead = `
local token, publish, messages, ttl, window = '%[1]s', '%[2]s', %[3]d, %[4]d, %[5]d
local key = KEYS[1]
local name = key:sub(%[6]d)
local mark, channel = '%[7]s' .. name, name%[8]s
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, offset, writer, stamp
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if newest then
	epoch, offset = newest[1]:match('(%%d+)-(%%d+)')
	writer, stamp = newest[2][1]:sub(1, #token), newest[2][1]:sub(#token + 1)
end

local function text(number) return string.format('%%.0f', number) end

local function need(command, name, ...)
	if not redis.acl_check_cmd(command, name, ...) then
		error({err = 'NOPERM ' .. command:lower() .. ' to ' .. name:match('^[^:]*:?') .. '* is not allowed'})
	end
end
`

// scriptFunctions are functions that most calls of Store do not need, and so do not define.
const scriptFunctions = termFunction + `
local function extend() return redis.call('PEXPIRE', key, ttl + window) end

local function add(stamp, payload)
	redis.call('XADD', key, epoch .. '-' .. offset, token .. stamp, payload)
end

local function replaceAll(stamp, payload)
	redis.call('XADD', key, 'MAXLEN', 1, epoch .. '-' .. offset, token .. stamp, payload)
end

local function publishEpoch()
	redis.call(publish, mark, epoch .. '-' .. offset .. '!')
end

local function beginEpoch()
	epoch, offset = text(math.max(time[1] * 1000000 + time[2], tonumber(epoch or 0) + 1)), '0'
end

local function carryOver()
	if token ~= term() then error({err = '` + noScript + ` the server has begun another term'}) end
	need(publish, mark, '')
	extend()
	local entries = redis.call('XRANGE', key, '-', '+')
	beginEpoch()
	for _, entry in ipairs(entries) do
		local stamp = entry[2][1]:match('^%d+$', #token + 1)
		if stamp then
			local put = offset == '0' and replaceAll or add
			offset = text(offset + 1)
			put(stamp, entry[2][2])
		end
	end
	if offset == '0' then replaceAll('', '') end
	publishEpoch()
end

local function ensureEpoch()
	need('PEXPIRE', key, 1)
	if not epoch then
		beginEpoch()
		add('', '')
	elseif writer ~= token then
		carryOver()
	end
end
`

// storing stores a message, ARGV[1], and publishes it; then id is its position. ARGV[2] is empty, missing, or a space
// and a trace context, which follows the position.
const storing = `
need(publish, mark, '')
need(publish, channel, '')
local first = writer ~= token or stamp == '' or math.floor(stamp / window) ~= math.floor(now / window)
if first then need('PEXPIRE', key, 1) end
if writer ~= token then` + scriptFunctions + `
	ensureEpoch()
end
local id = redis.call('XADD', key, 'MAXLEN', '~', messages, epoch .. '-*', token .. text(now), ARGV[1])
if first then redis.call('PEXPIRE', key, ttl + window) end
redis.call(publish, mark, id .. (ARGV[2] or ''))
redis.call(publish, channel, ARGV[1])
`

// scriptBodies returns the parts after the head. The position is published right before the message, and
// nothing comes between the two on any connection.
//
// A stream that is stored into lives for a window longer than its messages, so that it is enough to say so with the
// first message of each window of the clock. It is trimmed by whole nodes, which costs half as much as by single
// entries; readers limit the number of entries.
//
// Nothing that a script has done is undone when it fails. A server refuses only its first write for want of memory,
// replicas or the like, so a message is stored first, and what has to work without memory begins with PEXPIRE. need
// checks beforehand whether the user may do all that follows. A stream that has entries is never deleted to write it
// again, which a cluster refuses in between while it moves the slot.
func scriptBodies() [scriptCount]string {
	return [scriptCount]string{
		storeScript: storing + `
return id
`,
		// A key's value is its digest and the position of its message, and expires with the history. As the first write
		// of the script has succeeded, the server does not refuse the key for want of memory.
		onceScript: `
local known = redis.call('GET', KEYS[2])
if known then return {known, 1} end
need('SET', KEYS[2], '')
` + storing + `
known = ARGV[3] .. ' ' .. id
redis.call('SET', KEYS[2], known, 'PX', ttl)
return {known, 0}
`,
		// A channel that a node is subscribed to needs an epoch that lasts; a read of any other one leaves nothing behind.
		// Without the permission for PUBSUB only the subscriptions of the reading node, ARGV[4], count.
		readScript: scriptFunctions + `
local function followed()
	if ARGV[4] == '1' then return true end
	local counts = redis.pcall('PUBSUB', publish == 'SPUBLISH' and 'SHARDNUMSUB' or 'NUMSUB', mark)
	return not counts.err and counts[2] > 0
end
if not epoch and not followed() then return {} end
if ARGV[4] == '1' or not epoch then
	ensureEpoch()
	extend()
elseif writer ~= token then
	carryOver()
end
local from = '-'
if ARGV[1] == tostring(epoch) and tonumber(ARGV[2]) <= tonumber(offset) then
	from = '(' .. ARGV[1] .. '-' .. ARGV[2]
end
local count = math.min(tonumber(ARGV[3]), messages)
return {epoch .. '-' .. offset, text(now), redis.call('XREVRANGE', key, '+', from, 'COUNT', count)}
`,
		forgetScript: scriptFunctions + `
need(publish, mark, '')
extend()
beginEpoch()
replaceAll('', '')
extend()
publishEpoch()
return epoch
`,
		// Keeps the epoch of a channel that is followed alive, but not messages that are too old. The entry that
		// takes their place is of the term that wrote them.
		touchScript: scriptFunctions + `
-- A server that is giving the slot away refuses keys that it does not hold: what is deleted cannot be written again.
local function moving()
	local result = redis.pcall('GET', key .. '?')
	return type(result) == 'table' and result.err ~= nil
end
if not epoch then return 0 end
if stamp ~= '' and tonumber(stamp) + ttl <= now and not moving() then
	need('XADD', key, '1-1', '', '')
	need('PEXPIRE', key, 1)
	redis.call('DEL', key)
	token = writer
	add('', '')
end
return extend()
`,
	}
}

// publishOnly publishes a message that is not kept. The first line makes it a script that writes, which a server that
// has become a replica refuses: it accepts a plain PUBLISH, which subscribers of the new master never receive. It needs
// no memory, so a full server runs it.
const publishOnly = "#!lua flags=allow-oom\nreturn redis.call('%s', KEYS[1], ARGV[1])"

// termFunction returns the token of the server's present term. A process that never was a replica has had all its data
// since it started, which is one term: its run_id. Its master_replid changes too when its first replica attaches, and
// repl-backlog-ttl after the last one left, but is needed for a process that got the data of another server, even if it
// has forgotten its promotion. CONFIG RESETSTAT hides that it ever was a replica, but not how many keys it has loaded
// last: when it started, or from the other server.
const termFunction = `
local function term()
	local info = redis.call('INFO', 'server', 'replication', 'stats', 'persistence')
	local function field(name) return info:match('\n' .. name .. ':(%w+)') or '' end
	local promoted = field('master_replid2'):match('[^0]') or field('total_net_repl_input_bytes') ~= '0'
	local id = field(promoted and 'master_replid' or 'run_id'):sub(1, 16)
	if promoted or id == '' then return id end
	return redis.sha1hex(id .. field('rdb_last_load_keys_loaded')):sub(1, 16)
end
`

// termOnly returns the token of the server's present term.
const termOnly = termFunction + "return term()"

// knownOnly reads a key, from a master only, as publishOnly does.
const knownOnly = "#!lua flags=allow-oom\nreturn redis.call('GET', KEYS[1]) or ''"

// tokenLength is how much of a server's run id or replication id makes a token.
const tokenLength = 16

// windowPart is which part of the time that messages are kept a window is long.
const windowPart = 4

// scriptTexts returns the scripts for a server's term.
func scriptTexts(m mode, token string, messages int, ttl time.Duration) (texts [scriptCount]string) {
	publish, untagged := "PUBLISH", ""
	if m == cluster {
		publish, untagged = "SPUBLISH", ":gsub('^{%d+}', '')"
	}
	window := ttl / windowPart
	head := fmt.Sprintf(scriptHead, token, publish, messages, ttl.Milliseconds(), window.Milliseconds(),
		len(streamPrefix)+1, positionPrefix, untagged)
	for i, body := range scriptBodies() {
		texts[i] = strings.TrimSpace(head + body)
	}
	texts[publishScript], texts[knownScript] = fmt.Sprintf(publishOnly, publish), knownOnly
	texts[permissionScript] = permissionScriptText(publish)
	texts[termScript] = termOnly
	return texts
}
