#!/usr/bin/env bash
# Makes sure that the tools which the tests need beyond Go, git and make are there: a C compiler for the race
# detector, Node.js and Chromium for the browser test, Python for the steps of moving, curl for the commands in
# docs/sse.md, and the proxies that have a configuration in deploy/. Installs what is missing, or says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

# The preprocessor finds stdlib.h only where the C library's headers are installed too.
has_compiler() { echo '#include <stdlib.h>' | "$(go env CC)" -E - >/dev/null 2>&1; }
has_node() {
	node -e 'const [a, b] = process.versions.node.split(".").map(Number)
		process.exit(a > 20 || a === 20 && b >= 19 ? 0 : 1)' >/dev/null 2>&1
}
has_npm() { npm --version >/dev/null 2>&1; }
has_python() { python3 --version >/dev/null 2>&1; }
# Debian has programs of the system in folders that are not on every user's PATH.
has_program() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
has_chromium() { .ci/chromium.sh >/dev/null; }

# The Debian packages of the tools that are missing, in one line.
missing() {
	{
		has_compiler || printf '%s\n' gcc libc6-dev
		has_node || echo nodejs
		has_npm || echo npm
		has_python || echo python3
		has_chromium || echo chromium
		command -v timeout >/dev/null || echo coreutils
		has_program curl || echo curl
		has_program nginx || echo nginx-light
		has_program caddy || echo caddy
		has_program haproxy || echo haproxy
	} | xargs
}

give_up() {
	echo "make test needs $packages (Debian's names; Node.js 20.19 or newer) and $1: install them, then run it again" >&2
	exit 1
}

packages=$(missing)
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null || give_up "finds no apt-get to install them with"
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null ||
	give_up "may not install them (neither root nor sudo without a password)"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Runs apt-get, and says nothing unless it fails.
apt() {
	local output
	output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

echo "installing $packages"
# Whether old package lists do after all, the installation shows.
apt update || true
# shellcheck disable=SC2086 # the names are words of one line
apt install -y --no-install-recommends $packages || give_up "apt-get could not install them"

packages=$(missing)
[ -z "$packages" ] || give_up "what apt-get installed is not enough"
