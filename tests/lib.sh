# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share.
# shellcheck shell=bash disable=SC2034

CLUSTER=$REPO/tests/cluster/cluster
BINARIES=$REPO/target/x86_64-unknown-linux-gnu/debug
RELEASE=$REPO/target/x86_64-unknown-linux-gnu/release

say() { printf '%s\n' "$*"; }

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root, for the node's namespaces and mounts. Run it with sudo."
}

need_programs() {
	local program
	for program in "$@"; do
		type -P "$program" >/dev/null || die "$program isn't there. Install it, then try again."
	done
}

# stage TEXT COMMAND...: run it and say how many seconds it took.
stage() {
	local text=$1 start=$SECONDS
	shift
	"$@"
	say "$(printf '%4d s  %s' $((SECONDS - start)) "$text")"
}

build_binaries() {
	# All of the workspace, as for the tests: with fewer packages features differ, and dependencies are built twice.
	(cd "$REPO" && cargo build --quiet --workspace --bins)
}

build_release() {
	(cd "$REPO" && cargo build --quiet --release --workspace --bins)
}
