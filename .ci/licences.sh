#!/usr/bin/env bash
# Compares docs/licences.md with the licences of the modules that are compiled into the command, the library and its brokers,
# on any supported system; "fix" writes the page. A licence is recognised by its text. An unknown one is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/licences.md

# licence_of FOLDER prints the SPDX identifiers of the licences in a module's folder, joined by AND.
licence_of() {
	local text found=()
	text=$(find "$1" -maxdepth 1 -type f \( -iname '*LICENSE*' -o -iname '*LICENCE*' -o -iname 'COPYING*' \) -exec cat {} + |
		tr -s '[:space:]' ' ')
	[[ $text != *"Apache License"*"Version 2.0"* ]] || found+=(Apache-2.0)
	if [[ $text == *"Redistribution and use in source and binary forms"* ]]; then
		[[ $text == *[Nn]"either the name"* ]] && found+=(BSD-3-Clause) || found+=(BSD-2-Clause)
	fi
	[[ $text != *"Permission to use, copy, modify, and"*"distribute this software"* ]] || found+=(ISC)
	[[ $text != *"Permission is hereby granted, free of charge"* ]] || found+=(MIT)
	[[ $text != *"Mozilla Public License"*"2.0"* ]] || found+=(MPL-2.0)
	[[ $text != *"This is free and unencumbered software"* ]] || found+=(Unlicense)
	[ ${#found[@]} -gt 0 ] || return 1
	printf '%s' "${found[0]}"
	[ ${#found[@]} = 1 ] || printf ' AND %s' "${found[@]:1}"
}

# modules prints the path and folder of each foreign module that is compiled in, sorted. Versions are left out, so that the
# page changes only if the modules or their licences do.
modules() {
	local system
	for system in linux darwin windows; do
		GOOS=$system CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{.Path}} {{.Dir}}{{end}}' \
			./manager/... ./server/... ./client/... ./broker ./cmd/shoal ./broker/natsbroker/... ./broker/redisbroker/... ./server/shoalprom
	done | grep -v '^github.com/shoal-go/shoal' | sort -u
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
	echo "# Licences"
	echo
	echo "Modules of others that are compiled into the command, the library and its brokers, by \`.ci/licences.sh\`. Versions are in the"
	echo "\`go.mod\` files; \`go version -m bin/shoal\` lists those of a program."
	echo
	echo "| module | licence |"
	echo "| --- | --- |"
} >"$new"
while read -r module folder; do
	licence=$(licence_of "$folder") || {
		echo "licences: the licence of $module in $folder is not known: read it, and add it to licence_of" >&2
		exit 1
	}
	echo "| \`$module\` | $licence |" >>"$new"
done < <(modules)

if [ "${1:-}" = fix ]; then
	cp "$new" "$page"
elif ! diff -u "$page" "$new"; then
	echo "licences: $page is out of date: run .ci/licences.sh fix" >&2
	exit 1
fi
