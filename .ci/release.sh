#!/usr/bin/env bash
# Builds the archives of a release and the package of the JavaScript client into dist/, with checksums. Two runs on one
# commit with one Go version give the same archives. VERSION defaults to the tag of the commit.
#
# Arguments: "check" then takes each artefact to a clean folder: it verifies the checksums, runs the binary of this system,
# compares the checksums with those of a second build in another folder, installs the command in a fresh module cache, as
# "go install .../cmd/shoal@latest" would after tagging, and installs the client in a fresh project. "tags" only prints the
# tags of the release, the tag of the root module last; "notes" only prints the section of the release in CHANGELOG.md.
set -euo pipefail
cd "$(dirname "$0")/.."

# The archives are built by this version of Go, which older ones fetch: its standard library is without the
# vulnerabilities that reached this code in the ones before, see docs/security.md.
export GOTOOLCHAIN=go1.26.10

version=${VERSION:-$(git describe --tags --exact-match --match 'v*' 2>/dev/null || true)}
module=github.com/shoal-go/shoal

give_up() {
	echo "make release: $1" >&2
	exit 1
}

# The folders of the modules that a user or another published module requires, each with its own tag.
mapfile -t folders < <(go work edit -json | sed -n "s#.*\"Path\": \"$module/\(.*\)\".*#\1/#p" && echo cmd/shoal/)

[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] ||
	give_up "the commit has no tag like v0.1.0; tag it, or set VERSION=v0.1.0"
if [ "${1:-}" = tags ]; then
	printf "%s$version\n" "${folders[@]}" ""
	exit
fi
if [ "${1:-}" = notes ]; then
	awk -v heading="## [${version#v}]" 'index($0, "## [") == 1 { on = index($0, heading) == 1; next } on' CHANGELOG.md |
		grep . || give_up "CHANGELOG.md has no section ## [${version#v}]"
	exit
fi
[ -z "$(git status --porcelain)" ] || give_up "the work tree has changes that are not committed"
tar --version 2>/dev/null | grep -q GNU || give_up "GNU tar is needed for archives that are the same on each run"

# Files in the archives carry the time of the commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# pack GOOS GOARCH builds one archive.
pack() {
	local name=shoal_${version#v}_$1_$2 binary=shoal
	[ "$1" != windows ] || binary=shoal.exe
	mkdir -p "dist/$name"
	CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -buildid= -X main.version=$version" -o "dist/$name/$binary" ./cmd/shoal
	cp LICENSE README.md CHANGELOG.md "dist/$name/"
	chmod 644 "dist/$name/"*.md "dist/$name/LICENSE"
	chmod 755 "dist/$name/$binary"
	tar -C dist --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" |
		gzip -9n >"dist/$name.tar.gz"
	rm -r "dist/${name:?}"
	echo "dist/$name.tar.gz"
}

# check_versions compares the version with those in the files: the modules require each other at the version of the release.
check_versions() {
	local stale
	stale=$(grep -rnE --include=go.mod --include=go.work "$module(/[a-z/]+)? v" . | grep -v " $version\b" || true)
	[ -z "$stale" ] || give_up "these lines do not name $version; docs/releasing.md says how to change them:"$'\n'"$stale"
	grep -q "\"version\": \"${version#v}\"" client/js/package.json || give_up "client/js/package.json has another version"
	for line in "version: ${version#v}" "appVersion: $version"; do
		grep -qx "$line" deploy/helm/shoal/Chart.yaml || give_up "deploy/helm/shoal/Chart.yaml lacks the line $line"
	done
}

# pack_client packs the JavaScript client.
pack_client() (
	cd client/js
	npm ci --ignore-scripts --no-audit --no-fund --silent
	npm run --silent build
	npm pack --silent --ignore-scripts --pack-destination ../../dist
)

# check_again builds everything once more from a clone in another folder and compares the checksums.
check_again() (
	git clone -q . "$scratch/again"
	VERSION=$version "$scratch/again/.ci/release.sh" >/dev/null
	diff dist/SHA256SUMS "$scratch/again/dist/SHA256SUMS" && echo "a second build has the same checksums"
)

# check_archive verifies the checksums and runs the binary of this system from its archive, in a folder of its own.
check_archive() {
	local name
	name=shoal_${version#v}_$(go env GOOS)_$(go env GOARCH)
	cp dist/SHA256SUMS dist/*.t*gz "$scratch"
	(
		cd "$scratch"
		sha256sum --quiet --check SHA256SUMS
		tar -xzf "$name.tar.gz"
		./"$name"/shoal --version | tee version
		grep -q "^shoal $version " version
		env -i "$name/shoal" check-config --dev
	)
}

# check_install installs the command from a tagged copy of this repository, with a module cache of its own.
check_install() (
	git clone -q --bare . "$scratch/origin.git"
	for folder in "${folders[@]}" ""; do
		git -C "$scratch/origin.git" tag -f "$folder$version" "$(git rev-parse HEAD)" >/dev/null
	done
	printf '[url "file://%s"]\n\tinsteadOf = https://%s\n' "$scratch/origin.git" "$module" >"$scratch/gitconfig"
	cd "$scratch"
	export GIT_CONFIG_GLOBAL=$scratch/gitconfig GOPRIVATE=$module GOWORK=off GOBIN=$scratch/bin
	# The modules of others come from the cache of this machine where it has them.
	export GOPROXY=file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY) GOFLAGS=-modcacherw
	GOMODCACHE=$scratch/cache go install "$module/cmd/shoal@latest"
	"$scratch/bin/shoal" version | grep "^shoal $version "
)

# check_client installs the packed client in a fresh project and loads it.
check_client() (
	mkdir "$scratch/project"
	cd "$scratch/project"
	npm init -y >/dev/null
	npm install --silent --no-audit --no-fund "$scratch"/*.tgz
	node --input-type=module -e "import { connect } from '@shoal/client'; console.log('@shoal/client', typeof connect)" |
		grep '^@shoal/client function$'
)

check_versions
rm -rf dist
for system in linux darwin windows; do
	for processor in amd64 arm64; do
		pack "$system" "$processor"
	done
done
pack_client
(cd dist && sha256sum ./*.t*gz | sed 's# \./# #' >SHA256SUMS && cat SHA256SUMS)
if [ "${1:-}" = check ]; then
	scratch=$(mktemp -d)
	trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
	check_archive
	check_again
	check_install
	check_client
fi
