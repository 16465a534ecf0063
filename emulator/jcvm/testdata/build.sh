#!/bin/sh
# Builds the load files beside this script from src. JC_SDK names a directory
# with the Java Card SDK's lib/ (tools.jar and the API's jars), GP_API one with
# the jar and the export files of org.globalplatform. Nothing of either is kept.
set -eu
cd "$(dirname "$0")"
: "${JC_SDK:?directory of the SDK}" "${GP_API:?directory of the API of GlobalPlatform}"
target=3.0.4 debug=
tools="$JC_SDK/lib/commons-cli-1.9.0.jar:$JC_SDK/lib/jctasks_tools.jar:$JC_SDK/lib/json.jar:$JC_SDK/lib/tools.jar"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# cap NAME PACKAGE AID [CLASS AID]...: one package into NAME.cap
cap() {
	name=$1 package=$2 aid=$3 api="$JC_SDK/lib/api_classic-$target.jar"
	shift 3
	applets=""
	while [ $# -gt 0 ]; do
		applets="$applets -applet $2 $package.$1"
		shift 2
	done
	dir=$(echo "$package" | tr . /)
	mkdir -p "$out/classes"
	javac -nowarn -source 8 -target 8 -g -proc:none -encoding ISO-8859-1 -implicit:none -bootclasspath "$api" -cp "$api:$GP_API/gpapi-globalplatform.jar:$out/classes" \
		-d "$out/classes" src/"$dir"/*.java >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
	# shellcheck disable=SC2086
	java -cp "$tools" com.sun.javacard.converter.Main -nobanner -i $debug -classdir "$out/classes" -d "$out/cap" \
		-exportpath "$GP_API/exports:$out/cap" -out CAP EXP JCA -target $target $applets "$package" "$aid" 1.0 >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
	[ -f "$out/cap/$dir/javacard/$(basename "$dir").cap" ] || { cat "$out/log"; exit 1; }
	cp "$out/cap/$dir/javacard/$(basename "$dir").cap" "$name.cap"
	if [ -n "${JCA:-}" ]; then cp "$out/cap/$dir/javacard/$(basename "$dir").jca" "$JCA/$name.jca"; fi
}

P=0xF0:0x00:0x00:0x00:0x01
cap ops ops $P:0x10 OpsApplet $P:0x10:0x01
debug=-debug # names and lines, for traces
cap bench bench $P:0x11 BenchApplet $P:0x11:0x01
debug=
cap lib lib $P:0x12
cap server server $P:0x13 Server $P:0x13:0x01
cap client client $P:0x14 Client $P:0x14:0x01
cap api api $P:0x15 ApiApplet $P:0x15:0x01
target=3.0.5
cap more more $P:0x16 MoreApplet $P:0x16:0x01
cap late late $P:0x18 LateApplet $P:0x18:0x01
cap secure secure $P:0x19 SecureApplet $P:0x19:0x01
cap shared shared $P:0x1A SharedApplet $P:0x1A:0x01
cap asym asym $P:0x17 AsymApplet $P:0x17:0x01
cap habits habits $P:0x18 HabitsApplet $P:0x18:0x01
