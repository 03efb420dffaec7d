#!/usr/bin/env bash
# Reports known vulnerabilities in the code that is compiled in, tests included. The database is the one at vuln.go.dev, or
# a copy that VULNDB names: a URL, or file:// and a folder with the files of data/osv in the repository golang/vulndb.
# Nothing is reported as safe without a database.
set -euo pipefail
cd "$(dirname "$0")/.."
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0
database=${VULNDB:-https://vuln.go.dev}

case $database in
file://*) [ -n "$(find "${database#file://}" -name 'GO-*.json' -print -quit)" ] ;;
*) curl -fsS --max-time 15 -o /dev/null "$database/index/db.json" ;;
esac || {
	echo "vulnerabilities: NOT CHECKED, $database cannot be read: name a copy with VULNDB=file:///FOLDER" >&2
	exit 1
}

# With the version of Go that builds the archives.
GOTOOLCHAIN=$(sed -n 's/^export GOTOOLCHAIN=//p' .ci/release.sh)
export GOTOOLCHAIN
go run "$govulncheck" -db "$database" -test work
