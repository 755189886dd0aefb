# SPDX-License-Identifier: Apache-2.0
# Starts a cluster, wholly or not at all.
# shellcheck shell=bash

# pick_ports COUNT: a row of ports free on loopback, below the range that the kernel hands out itself. The row to
# begin with follows from the run folder, so that clusters that start at the same moment don't pick the same.
pick_ports() {
	"$PYTHON" - "$PORT_SEED" "$1" <<-'PYTHON'
		import socket, sys
		seed, count = map(int, sys.argv[1:])
		def free(port):
		    with socket.socket() as s:
		        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		        try:
		            s.bind(("127.0.0.1", port))
		        except OSError:
		            return False
		    return True
		for turn in range(1200):
		    first = 20000 + (seed + turn) % 1200 * 10
		    if all(free(port) for port in range(first, first + count)):
		        print(*range(first, first + count))
		        break
	PYTHON
}

choose_ports() {
	local ports
	read -ra ports <<<"$(pick_ports 5)"
	[ ${#ports[@]} = 5 ] || die "no free ports on 127.0.0.1 between 20000 and 32000."
	HOST_PORT=${ports[0]}
	if [ "$MODE" = control ]; then
		API_PORT=$HOST_PORT
		ETCD_PORT=${ports[1]} ETCD_PEER_PORT=${ports[2]}
		CONTROLLER_MANAGER_PORT=${ports[3]} SCHEDULER_PORT=${ports[4]}
	else
		# A network of its own: the usual ones.
		API_PORT=6443 ETCD_PORT=2379 ETCD_PEER_PORT=2380 CONTROLLER_MANAGER_PORT=10257 SCHEDULER_PORT=10259
	fi
}

choose_programs() {
	ETCD=$(daemon etcd)
	PYTHON=$(type -P python3)
	CONTAINERD='' CTR='' RUNC='' CNI_BIN='' SNAPSHOTTER=overlayfs
	[ "$MODE" = node ] || return 0
	CONTAINERD=$(daemon containerd)
	CTR=$(dirname "$CONTAINERD")/ctr
	RUNC=$(daemon runc)
	CNI_BIN=$(dirname "$(daemon bridge)")
	# An overlay can't lie on an overlay (a run folder inside a container): copy the images instead.
	[ "$(stat --file-system --format %T "$RUN")" != overlayfs ] || SNAPSHOTTER=native
}

# write_env: what the first process and later commands need to know.
write_env() {
	local name
	for name in NAME MODE RUN CGROUP HOST_PORT API_PORT ETCD_PORT ETCD_PEER_PORT CONTROLLER_MANAGER_PORT \
		SCHEDULER_PORT ETCD PYTHON CONTAINERD CTR RUNC CNI_BIN SNAPSHOTTER KUBERNETES IMAGES KUBECTL HELM BIN_PATH; do
		printf '%s=%q\n' "$name" "${!name}"
	done >"$RUN/env"
}

prepare_run_folder() {
	mkdir -p "$RUN"/{pids,log,conf}
	[ "$MODE" = node ] || return 0
	mkdir -p "$RUN"/{cni.d,cni,cni-addresses,containerd,kubelet,sysctl,volume-plugins,var-log/pods,var-log/containers}
	: >"$RUN/resolv.conf"
	render "$CLUSTER_DIR/conf/kubelet.yaml.in" "$RUN/conf/kubelet.yaml"
	render "$CLUSTER_DIR/conf/kube-proxy.yaml.in" "$RUN/conf/kube-proxy.yaml"
	render "$CLUSTER_DIR/conf/containerd.toml.in" "$RUN/conf/containerd.toml"
	render "$CLUSTER_DIR/conf/cni.conflist.in" "$RUN/cni.d/10-pods.conflist"
}

# detached COMMAND...: run it in the cluster's cgroup, away from this shell's signals. The lock (descriptor 9) is
# held until the process is in the cgroup: whoever gets the lock after a `kill -9` of this shell finds it there.
detached() {
	(
		trap - EXIT INT TERM HUP
		cgroup_enter
		exec setsid "$@" 9<&-
	) </dev/null &
}

start_init() {
	local namespaces=(--mount --pid) child
	[ "$MODE" = control ] || namespaces+=(--net --ipc --uts)
	detached unshare "${namespaces[@]}" --fork --mount-proc --propagation private --kill-child=SIGKILL \
		"$CLUSTER_DIR/lib/init" "$RUN" >"$RUN/log/init.log" 2>&1
	local unshare=$! tries=0
	# Before it becomes `unshare` it has children that enter the cgroup.
	until child=$(pgrep --full --parent "$unshare" "$CLUSTER_DIR/lib/init"); do
		sleep 0.02
		kill -0 $unshare 2>/dev/null && [ $((tries += 1)) -lt 500 ] || { tail "$RUN/log/init.log" >&2 && return 1; }
	done
	record init "$child"
}

# wait_init: until the first process says ready, passing on what it says.
wait_init() {
	local shown=0 lines end=$((SECONDS + 600)) alive=yes
	while [ $alive = yes ] && [ $SECONDS -lt $end ]; do
		recorded_pid init >/dev/null || alive=no
		mapfile -t -s $shown lines <"$RUN/log/init.log"
		[ ${#lines[@]} = 0 ] || printf '%s\n' "${lines[@]}" >&2
		shown=$((shown + ${#lines[@]}))
		[ ! -e "$RUN/ready" ] || return 0
		sleep 0.1
	done
	return 1
}

start_api_tunnel() {
	detached socat "TCP-LISTEN:$HOST_PORT,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$RUN/api.sock" \
		>"$RUN/log/api-tunnel.log" 2>&1
	record api-tunnel $!
	local tries=0
	until "$KUBECTL" --kubeconfig "$RUN/kubeconfig" get --raw /readyz >/dev/null 2>&1; do
		sleep 0.1
		[ $((tries += 1)) -lt 100 ] || { say "port $HOST_PORT on 127.0.0.1 doesn't answer" && return 1; }
	done
}

# give_up: `up` failed or was interrupted.
give_up() {
	trap - EXIT
	trap '' INT TERM HUP
	if [ -n "${PRIO_OPERATOR_KEEP_FAILED:-}" ]; then
		say "the cluster did not come up; kept as it is in $RUN (\"down\" or the next \"up\" removes it)."
	else
		say "the cluster did not come up; removing what was started. Set PRIO_OPERATOR_KEEP_FAILED=1 to keep its logs."
		tear_down
	fi
	exit 1
}

up_cluster() {
	local start=$EPOCHREALTIME
	need_root "a cluster of our own"
	lock_run
	if is_up; then
		[ "$MODE" = "$1" ] || die "cluster \"$NAME\" is up in mode $MODE: take it down first, or give another --name."
		say "cluster \"$NAME\" is up already."
		return
	fi
	if [ -e "$RUN/env" ] || cgroup_exists; then
		stage "removed what an earlier run left" clear_leftovers
	fi
	MODE=$1
	if [ -n "$(missing "$MODE")" ]; then set_up "$MODE"; fi
	check_kernel "$MODE"
	trap give_up EXIT
	trap 'exit 130' INT TERM HUP
	choose_programs
	choose_ports
	write_env
	prepare_run_folder
	stage "certificates are made" make_pki
	cgroup_make
	start_init
	wait_init
	[ "$MODE" = control ] || start_api_tunnel
	touch "$RUN/up"
	trap - EXIT INT TERM HUP
	say "$(printf '%6s s  cluster "%s" (%s) is up' "$(seconds_since "$start")" "$NAME" "$MODE")"
	say "export KUBECONFIG=$RUN/kubeconfig"
}
