#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs the built binaries into image archives: target/images/{facilitator,operator}.tar, each with one static program
# and, where this machine has it, its bundle of authorities (cloud SDKs refuse to start without one).
#
#     tests/images.sh [PROFILE]      debug (default) or release
set -euo pipefail

REPO=$(cd "$(dirname "$0")/.." && pwd)
PROFILE=${1:-debug}
BINARIES=$REPO/target/$(uname -m)-unknown-linux-gnu/$PROFILE
OUT=$REPO/target/images
AUTHORITIES=/etc/ssl/certs/ca-certificates.crt

# pack IMAGE BINARY PROGRAM: does nothing when the archive is of this profile and newer than what goes in.
pack() {
	local image=$1 binary=$BINARIES/$2 program=$3 out=$OUT/$1.tar extra=() packed=""
	[ -x "$binary" ] || {
		echo "error: $binary isn't built: run \"make images\", or \"make release-images\" for those of production." >&2
		exit 1
	}
	[ ! -r "$out.profile" ] || packed=$(<"$out.profile")
	[ "$packed" != "$PROFILE" ] || [ ! "$out" -nt "$binary" ] || [ ! "$out" -nt "$0" ] || return 0
	rm -f "$out.profile"
	[ ! -r $AUTHORITIES ] || extra+=("$AUTHORITIES=$AUTHORITIES")
	"$REPO/tests/cluster/cluster" image "$out" "localhost/prio-operator/$image:dev" "$program" "$binary=$program" "${extra[@]}"
	echo "$PROFILE" >"$out.profile"
	echo "packed $out (localhost/prio-operator/$image:dev, $PROFILE)"
}

mkdir -p "$OUT"
pack facilitator facilitator /facilitator
pack operator "$([ -x "$BINARIES/prio-operator" ] && echo prio-operator || echo operator)" /prio-operator
