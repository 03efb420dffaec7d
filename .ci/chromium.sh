#!/usr/bin/env bash
# Prints the path of a Chromium that starts: $CHROMIUM, or the first of the names that systems give it.
set -euo pipefail

for name in ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome google-chrome-stable; do
	path=$(command -v "$name") || continue
	# Some systems ship a placeholder of that name, which only says where the browser could be had.
	"$path" --version >/dev/null 2>&1 || continue
	echo "$path"
	exit 0
done
exit 1
