#!/bin/sh
# Builds base.cap from src, verifies it, and writes the digests of both into
# base.cap.sources. JC_SDK names a directory with the Java Card SDK's lib/
# (tools.jar and the API's jars), GP_API one with the jar and the export files of
# org.globalplatform. Nothing of either is kept, nor are the classes and the
# manifest that the converter packs in.
set -eu
cd "$(dirname "$0")"
: "${JC_SDK:?directory of the SDK}" "${GP_API:?directory of the API of GlobalPlatform}"
target=3.0.4
api="$JC_SDK/lib/api_classic-$target.jar"
tools="$JC_SDK/lib/commons-cli-1.9.0.jar:$JC_SDK/lib/jctasks_tools.jar:$JC_SDK/lib/json.jar:$JC_SDK/lib/tools.jar"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

fail() { cat "$out/log" >&2; exit 1; }

mkdir "$out/classes" "$out/cap" "$out/packed"
javac -nowarn -source 8 -target 8 -g -proc:none -encoding ISO-8859-1 -implicit:none \
	-cp "$api:$GP_API/gpapi-globalplatform.jar" -d "$out/classes" src/freearea/base/*.java >"$out/log" 2>&1 || fail

P=0xF0:0x46:0x52:0x45:0x45:0x41:0x52:0x45:0x41:0x00
java -cp "$tools" com.sun.javacard.converter.Main -nobanner -classdir "$out/classes" -d "$out/cap" \
	-exportpath "$GP_API/exports" -out CAP EXP JCA -target $target \
	-applet $P:0x01 freearea.base.CommonAP -applet $P:0x0A freearea.base.TypeA -applet $P:0x0D freearea.base.TypeD \
	freearea.base $P 1.0 >"$out/log" 2>&1 || fail
cap="$out/cap/freearea/base/javacard/base.cap"
[ -f "$cap" ] || fail

(cd "$out/packed" && jar xf "$cap")
(cd "$out/packed" && jar --create --file "$out/base.cap" --no-manifest --no-compress --date=2000-01-01T00:00:00Z freearea/base/javacard/*.cap)

# The verifier exits with 0 on errors too.
java -cp "$tools" com.sun.javacard.offcardverifier.Verifier -nobanner -target $target \
	"$GP_API/exports/org/globalplatform/javacard/globalplatform.exp" "$out/base.cap" >"$out/log" 2>&1 || fail
cat "$out/log"
grep -q ' 0 errors' "$out/log" || exit 1

cp "$out/base.cap" base.cap
if [ -n "${JCA:-}" ]; then cp "$out/cap/freearea/base/javacard/base.jca" "$JCA/"; fi
sha256sum base.cap build.sh src/freearea/base/*.java >base.cap.sources
