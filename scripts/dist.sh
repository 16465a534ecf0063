#!/usr/bin/env bash
# scripts/dist.sh DIR [SYSTEM/ARCHITECTURE ...]
#
# Puts the archives of a release, Debian packages and their SHA-256 sums into
# DIR, for the systems that are named or all. The same sources, Go and C
# compiler make the same bytes, wherever and whenever. NFPM is the command
# that makes packages.
set -euo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- linux/amd64 linux/arm64 windows/amd64

version=$(sed -n 's/^const Version = "\(.*\)"$/\1/p' cmd/freearea/app/app.go)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} LC_ALL=C.UTF-8 TZ=UTC
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

host=linux/$(go env GOHOSTARCH)

build() { # system/architecture: builds $work/bin/system/architecture, once
    local program=$work/bin/$1 env=(GOOS="${1%/*}" GOARCH="${1#*/}" CGO_ENABLED=0)
    [ ! -e "$program" ] || return 0
    case $1 in
    "$host") env+=(CGO_ENABLED=1) ;;
    linux/arm64)
        local sysroot=$PWD/.cache/sysroot-arm64
        ./scripts/sysroot.sh
        env+=(CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc
            PKG_CONFIG_LIBDIR="$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$sysroot")
        ;;
    linux/*)
        echo "dist: $1 takes a C compiler and a libpcsclite that are not known here" >&2
        exit 1
        ;;
    esac
    env "${env[@]}" go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o "$program" ./cmd/freearea
}

# The manual pages are the program's own words, so the first one that runs here writes them.
build "$host"
mkdir "$work/man"
"$work/bin/$host" --lang en man | gzip -9n >"$work/man/freearea.1.gz"
"$work/bin/$host" --lang ja man | gzip -9n >"$work/man/freearea.ja.1.gz"
gzip -9nc CHANGELOG.md >"$work/changelog.gz"

for target; do
    arch=${target#*/}
    name=freearea_${version}_${target/\//_}
    build "$target"
    mkdir "$work/$name"
    cp LICENSE README.md README.ja.md CHANGELOG.md docs/operations.md "$work/$name"
    case $target in
    windows/*)
        cp "$work/bin/$target" "$work/$name/freearea.exe"
        find "$work/$name" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
        (cd "$work" && rm -f "$out/$name.zip" && find "$name" -type f | sort | zip -q -X -9 "$out/$name.zip" -@)
        ;;
    *)
        cp "$work/bin/$target" "$work/freearea"
        cp "$work/freearea" packaging/{readerd.toml,freearea-readerd.service,completion.bash,completion.zsh} "$work/$name"
        cp "$work"/man/*.gz "$work/$name"
        tar -C "$work" --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name" |
            gzip -9n >"$out/$name.tar.gz"
        ARCH=$arch VERSION=$version STAGE=$work \
            ${NFPM:?"run it with make dist"} package -f packaging/nfpm.yaml -p deb -t "$out/freearea_${version}-1_$arch.deb"
        ;;
    esac
done
cd "$out"
sha256sum freearea_"$version"[_-]* >SHA256SUMS
