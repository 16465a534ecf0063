#!/usr/bin/env bash
# Puts what linking for linux/arm64 with PC/SC needs beside the cross compiler
# into .cache/sysroot-arm64: libpcsclite and its headers, out of Debian's
# packages for arm64. The system's own architectures and package lists stay as they
# are, and root is not needed. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
sysroot=$PWD/.cache/sysroot-arm64
[ ! -e "$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig/libpcsclite.pc" ] || exit 0

echo 'setup: fetching libpcsclite for arm64'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
: >"$work/status"
apt=(
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= -o Acquire::Languages=none
    -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
)
"${apt[@]}" update </dev/null
(cd "$work" && "${apt[@]}" download libpcsclite1 libpcsclite-dev </dev/null)
for package in "$work"/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
rm -rf "$sysroot"
mkdir -p "${sysroot%/*}"
mv "$work/root" "$sysroot"
