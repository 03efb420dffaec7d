#!/usr/bin/env bash
# Prints the path of promtool, which checks deploy/alerts.yml: $PROMTOOL, the one in PATH, or that of Debian's package
# prometheus, which is unpacked into a cache folder and not installed, because it would start a server.
set -euo pipefail

if [ -n "${PROMTOOL:-}" ]; then
	echo "$PROMTOOL"
	exit
fi
if command -v promtool; then
	exit
fi
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/shoal-ci/prometheus
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -x "$cache/usr/bin/promtool" ]; then
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
		echo "promtool is missing: install Prometheus, or set PROMTOOL to the path of promtool" >&2
		exit 1
	}
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	(
		cd "$scratch"
		apt-get -qq download prometheus >/dev/null 2>&1 || {
			{ [ "$(id -u)" = 0 ] && apt-get -qq update || sudo -n apt-get -qq update; } >/dev/null 2>&1
			apt-get -qq download prometheus >/dev/null
		}
		dpkg-deb --fsys-tarfile ./prometheus_*.deb | tar -xf - -C "$cache" ./usr/bin/promtool
	)
fi
echo "$cache/usr/bin/promtool"
