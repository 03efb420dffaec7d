#!/usr/bin/env bash
# Makes sure that there is a Redis server (7.0 or newer) for the tests that start their own: $SHOAL_REDIS_SERVER, or
# redis-server. Installs it where it is missing, or says what to install.
set -euo pipefail

server=${SHOAL_REDIS_SERVER:-redis-server}

# "Redis server v=7.0.15 sha=…" or "Valkey server v=8.0.1 sha=…"
has_redis() {
	local version
	version=$("$server" --version 2>/dev/null | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
	[ "${version:-0}" -ge 7 ]
}

give_up() {
	echo "make test needs Redis 7.0 or newer and $1: install redis-server (Debian's name), or set" \
		"SHOAL_REDIS_SERVER to the path of the server, then run it again" >&2
	exit 1
}

has_redis && exit 0
[ -z "${SHOAL_REDIS_SERVER:-}" ] || give_up "$server is none"
command -v apt-get >/dev/null || give_up "finds no apt-get to install it with"
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || give_up "may not install it (neither root nor sudo without a password)"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Runs apt-get, and says nothing unless it fails.
apt() {
	local output
	output=$(as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q "$@" </dev/null 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

# Stops the service that the package starts; the tests start their own servers.
stop_service() {
	if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
		as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
	else
		as_root service redis-server stop >/dev/null 2>&1 || true
	fi
}

echo "installing redis-server"
# Whether old package lists do after all, the installation shows.
apt update || true
apt install -y --no-install-recommends redis-server || give_up "apt-get could not install it"
stop_service
has_redis || give_up "what apt-get installed is not enough"
