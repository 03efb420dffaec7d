#!/usr/bin/env bash
# Counts the comment lines of Go files that use the phrases that CONTRIBUTING.md advises against, and fails when they
# exceed 2 % of all comment lines. Arguments: files or directories (default: the repository). WORDS_LIST=1 prints the lines.
set -euo pipefail
cd "$(dirname "$0")/.."

phrases='\<[Ww]hat\>|\<[Ww]hoever\>|\<[Ww]hatever\>|\<anew\>|\<[Mm]eanwhile\>|\<for ever\>|\<as good as\>|\<of which\>|\<of whom\>'
phrases+='|\<is none\>|\<are none\>|\<is no [a-z]+\>|\<so many\>|\<(is|are|was|were) told\>|\<[Tt]hose that\>|\<[Tt]hat of\>|\<knows? nothing\>'

find "${@:-.}" -name node_modules -prune -o -name '*.go' -print0 |
	xargs -0 awk -v phrases="$phrases" -v list="${WORDS_LIST:-}" '
	match($0, /(^|[ \t])\/\/ /) && !/\/\/nolint|\/\/go:/ {
		comments++
		comment = substr($0, RSTART)
		if (comment ~ phrases) {
			found++
			if (list) printf "%s:%d:%s\n", FILENAME, FNR, comment
		}
	}
	END {
		share = comments ? 100 * found / comments : 0
		printf "%d of %d comment lines (%.1f %%) use discouraged phrases\n", found, comments, share
		exit share >= 2
	}'
