#!/usr/bin/env bash
# Installs what building with PC/SC and running all tests need beside Go and
# make: a C compiler, the PC/SC library and daemon, a virtual reader,
# independent clients, a token for keys, a browser, an MQTT broker, and what the
# packages of a release are made with. Does nothing, and needs no root, when all are there.
set -euo pipefail

packages=(
    gcc libc6-dev           # cgo
    libpcsclite-dev pkg-config
    pcscd vsmartcard-vpcd   # the daemon, and a reader whose card is a program
    opensc pcsc-tools       # clients that others wrote
    softhsm2                # a PKCS#11 token in software
    chromium                # a browser, for pages that talk to a terminal
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross # cgo for small boards
    qemu-user-static        # which runs what was built for them
    zip adduser             # what the packages of a release are made and installed with
    mosquitto mosquitto-clients # an MQTT broker; the tests start their own, with a configuration of their own
)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this script knows Debian and its relatives only." >&2
    echo "setup: install by hand what these Debian packages hold: ${packages[*]}" >&2
    echo "setup: without them, 'make demo', 'make build' and 'go test ./...' still run, without PC/SC." >&2
    exit 1
fi

missing=()
for p in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$p")
done
sysroot=$(dirname "$0")/sysroot.sh
[ ${#missing[@]} -gt 0 ] || exec "$sysroot"

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing: ${missing[*]}" >&2
    echo "setup: run once:  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    echo "setup: without them, 'make demo', 'make build' and 'go test ./...' still run, without PC/SC." >&2
    exit 1
fi

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
exec "$sysroot"
