#!/usr/bin/env bash
# Checks that each commit that a page names is one of the history, where a reader can look it up. A shallow clone has no
# history to look in.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(git rev-parse --is-shallow-repository 2>/dev/null)" = false ] || exit 0

status=0
while IFS=: read -r page line id; do
	[[ $id == *[0-9]* && $id == *[a-f]* ]] || continue # a number, or a word
	git merge-base --is-ancestor "$id" HEAD 2>/dev/null || {
		echo "$page:$line: names the commit $id, which is not in the history" >&2
		status=1
	}
done < <(git grep -noE '\b[0-9a-f]{7,40}\b' -- '*.md' ':!*/testdata/*')
exit $status
