#!/usr/bin/env bash
# Counts the comment lines of Go files that use the phrases that CONTRIBUTING.md advises against, and fails when they
# exceed 2 % of all comment lines. Arguments: files or directories (default: the repository). WORDS_LIST=1 prints the lines.
set -euo pipefail
cd "$(dirname "$0")/.."

phrases='[Ww]hat|[Ww]hoever|[Ww]hatever|anew|[Mm]eanwhile|for ever|as good as|of which|of whom|is none|are none|is no [a-z]+'
phrases+='|so many|(is|are|was|were) told|[Tt]hose that|[Tt]hat of|knows? nothing'

comments=$(mktemp)
trap 'rm -f "$comments"' EXIT
find "${@:-.}" -name node_modules -prune -o -name '*.go' -print0 |
	xargs -0 grep -HnoE '(^|[[:space:]])// .*' >"$comments" || true

total=$(wc -l <"$comments")
found=$(grep -cwE "$phrases" "$comments" || true)
[ -z "${WORDS_LIST:-}" ] || grep -wE "$phrases" "$comments" || true
echo "$found of $total comment lines use discouraged phrases ($((100 * found / (total > 0 ? total : 1))) %)"
[ $((100 * found)) -lt $((2 * total)) ]
