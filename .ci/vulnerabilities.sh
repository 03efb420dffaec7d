#!/usr/bin/env bash
# Reports known vulnerabilities in the code that is compiled in. The database is the one at vuln.go.dev. Where that cannot be
# reached, one is made from the module golang.org/x/vulndb, which the module proxy has: the output says so and of which day
# it is. Nothing is reported as safe without a database.
set -euo pipefail
cd "$(dirname "$0")/.."
govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0
database=https://vuln.go.dev
folder=${XDG_CACHE_HOME:-$HOME/.cache}/shoal

if ! curl -fsS --max-time 15 -o /dev/null "$database/index/db.json" 2>/dev/null; then
	echo "vulnerabilities: $database cannot be reached"
	module=$(cd / && go mod download -json golang.org/x/vulndb@latest) || {
		echo "vulnerabilities: NOT CHECKED, the module golang.org/x/vulndb cannot be downloaded either" >&2
		exit 1
	}
	field() { sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p" <<<"$module"; }
	version=$(field Version)
	echo "vulnerabilities: using the database of golang.org/x/vulndb $version instead"
	if [ ! -e "$folder/vulndb-$version/index/db.json" ]; then
		mkdir -p "$folder/vulndb-$version"
		GOWORK=off GOFLAGS=-mod=mod go run -C "$(field Dir)" ./cmd/indexdb -vulns "$(field Dir)/data/osv" \
			-out "$folder/vulndb-$version" || {
			echo "vulnerabilities: NOT CHECKED, the database could not be built" >&2
			exit 1
		}
	fi
	database=file://$folder/vulndb-$version
fi

mapfile -t packages < <(go list work | grep -v -e /benchmarks/compare)
go run "$govulncheck" -db "$database" "${packages[@]}"
