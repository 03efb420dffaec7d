#!/usr/bin/env bash
# Builds the archives of a release into dist/, with checksums. Two runs on one commit with one Go version give the same bytes.
# VERSION defaults to the tag of the commit. "check" as an argument then installs the command in a fresh module cache, as
# "go install .../cmd/shoal@latest" would after tagging, and runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${VERSION:-$(git describe --tags --exact-match --match 'v*' 2>/dev/null || true)}
module=github.com/shoal-go/shoal

give_up() {
	echo "make release: $1" >&2
	exit 1
}

[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] ||
	give_up "the commit has no tag like v0.1.0; tag it, or set VERSION=v0.1.0"
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

# install_check installs the command from a tagged copy of this repository, with a module cache of its own.
install_check() {
	local scratch
	scratch=$(mktemp -d)
	trap 'chmod -R u+w "'"$scratch"'"; rm -rf "'"$scratch"'"' RETURN
	git clone -q --bare . "$scratch/origin.git"
	for folder in "" broker/brokertest/ broker/natsbroker/ broker/redisbroker/ server/shoalprom/ cmd/shoal/; do
		git -C "$scratch/origin.git" tag -f "$folder$version" "$(git rev-parse HEAD)" >/dev/null
	done
	printf '[url "file://%s"]\n\tinsteadOf = https://%s\n' "$scratch/origin.git" "$module" >"$scratch/gitconfig"
	(
		cd "$scratch"
		export GIT_CONFIG_GLOBAL=$scratch/gitconfig GOPRIVATE=$module GOWORK=off GOBIN=$scratch/bin
		# The modules of others come from the cache of this machine where it has them.
		export GOPROXY=file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY) GOFLAGS=-modcacherw
		GOMODCACHE=$scratch/cache go install "$module/cmd/shoal@$version"
		"$scratch/bin/shoal" version
	)
}

rm -rf dist
for system in linux darwin windows; do
	for processor in amd64 arm64; do
		pack "$system" "$processor"
	done
done
(cd dist && sha256sum ./*.tar.gz | sed 's# \./# #' >SHA256SUMS && cat SHA256SUMS)
[ "${1:-}" != check ] || install_check
