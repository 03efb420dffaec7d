package redisbroker

import (
	"fmt"
	"strings"
	"time"
)

// script is one of the scripts that do in one step what must not be torn apart.
type script int

const (
	storeScript script = iota
	keptScript
	forgetScript
	touchScript
	publishScript
	scriptCount
)

// What is kept of a channel is a stream. Its entries' ids are epoch-offset: the epoch is when it began, in
// microseconds, and the offset counts from 1. An entry has one field; its name is the token of the server's term
// that wrote it, and after that when, in milliseconds; its value is the payload. An entry without a time is no
// message: it only holds a position, of a stream that is empty but has to have one.
//
// A token stands for a server's term as master: from its start or promotion to its end. A server that comes back with
// yesterday's data, or was promoted before it had the newest messages, would use offsets again that
// clients have seen with other messages. So whoever finds entries of another term carries them over
// into a new epoch.
//
// The token is a part of the scripts' text, and thereby of their names: a server that has started anew does not
// know them, and says so before anything is done.

const scriptHead = `
local token, publish, messages, ttl = '%[1]s', '%[2]s', %[3]d, %[4]d
local key = KEYS[1]
local name = key:sub(%[5]d)
local mark = '%[6]s' .. name
local channel = name:gsub('^{%%d+}', '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number) return string.format('%%.0f', number) end

local function place(id, stamp, payload)
	redis.call('XADD', key, id, token .. stamp, payload)
end

local function newest()
	local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
	if not entry then return end
	local epoch, offset = entry[1]:match('(%%d+)-(%%d+)')
	return epoch, offset, entry[2][1]:sub(1, #token), entry[2][1]:sub(#token + 1)
end

local function after(epoch)
	return text(math.max(time[1] * 1000000 + time[2], tonumber(epoch or 0) + 1))
end

local function tell(epoch, offset)
	redis.call(publish, mark, epoch .. '-' .. offset .. '!')
end

local function adopt(old)
	local entries = redis.call('XRANGE', key, '-', '+')
	redis.call('DEL', key)
	local epoch, offset = after(old), 0
	for _, entry in ipairs(entries) do
		local stamp = entry[2][1]:sub(#token + 1)
		if stamp ~= '' then
			offset = offset + 1
			place(epoch .. '-' .. offset, stamp, entry[2][2])
		end
	end
	if offset == 0 then place(epoch .. '-0', '', '') end
	tell(epoch, offset)
	return epoch, text(offset)
end

local function current()
	local epoch, offset, writer = newest()
	if not epoch then
		epoch, offset = after(), '0'
		place(epoch .. '-0', '', '')
	elseif writer ~= token then
		epoch, offset = adopt(epoch)
	end
	return epoch, offset
end
`

// scriptBodies returns what comes after the head. The position is told right before the message, and
// nothing comes between the two on any connection.
func scriptBodies() [scriptCount]string {
	return [scriptCount]string{
		storeScript: `
local id = redis.call('XADD', key, 'MAXLEN', '=', messages, current() .. '-*', token .. text(now), ARGV[1])
redis.call('PEXPIRE', key, ttl)
redis.call(publish, mark, id)
redis.call(publish, channel, ARGV[1])
return id
`,
		keptScript: `
local epoch, offset = current()
redis.call('PEXPIRE', key, ttl)
return {epoch .. '-' .. offset, text(now), redis.call('XRANGE', key, '-', '+')}
`,
		forgetScript: `
local epoch = after((newest()))
redis.call('DEL', key)
place(epoch .. '-0', '', '')
redis.call('PEXPIRE', key, ttl)
tell(epoch, '0')
return epoch
`,
		// Keeps the epoch of a channel that is followed alive, but not messages that are too old. The entry that
		// takes their place is of the term that wrote them.
		touchScript: `
local epoch, offset, writer, stamp = newest()
if not epoch then return 0 end
if stamp ~= '' and tonumber(stamp) + ttl <= now then
	redis.call('DEL', key)
	token = writer
	place(epoch .. '-' .. offset, '', '')
end
return redis.call('PEXPIRE', key, ttl)
`,
	}
}

// publishOnly publishes a message that is not kept. The first line makes it a script that writes, which a server that
// has become a replica refuses: a plain PUBLISH it takes, and those that listen to the new master never hear it.
const publishOnly = "#!lua\nreturn redis.call('%s', KEYS[1], ARGV[1])"

// tokenLength is how much of a server's replication id, which is new with each term, makes a token.
const tokenLength = 16

// scriptTexts returns the scripts for a server's term.
func scriptTexts(m mode, token string, messages int, ttl time.Duration) (texts [scriptCount]string) {
	publish := "PUBLISH"
	if m == cluster {
		publish = "SPUBLISH"
	}
	head := fmt.Sprintf(scriptHead, token, publish, messages, ttl.Milliseconds(), len(keptPrefix)+1, markPrefix)
	for i, body := range scriptBodies() {
		texts[i] = strings.TrimSpace(head + body)
	}
	texts[publishScript] = fmt.Sprintf(publishOnly, publish)
	return texts
}
