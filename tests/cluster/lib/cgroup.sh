# SPDX-License-Identifier: Apache-2.0
# A cluster's own cgroups: $CGROUP/services holds what we start, $CGROUP/node is the kubelet's root.
# They also say for certain which processes are ours: whatever is in a tree that we made.
# shellcheck shell=bash

CGROUP_FS=/sys/fs/cgroup

# cgroup_version: 2 (one tree), 1 (a tree for each controller, with or without a version 2 tree beside) or 0.
cgroup_version() {
	if [ -e $CGROUP_FS/cgroup.controllers ]; then
		echo 2
	elif [ -d $CGROUP_FS/memory ] && [ -d $CGROUP_FS/cpuset ]; then
		echo 1
	else
		echo 0
	fi
}

# cgroup_trees: the roots of all trees. Links (cpu -> cpu,cpuacct) are left out.
cgroup_trees() {
	local dir
	if [ "$(cgroup_version)" = 2 ]; then
		echo $CGROUP_FS
		return
	fi
	for dir in "$CGROUP_FS"/*; do
		[ -L "$dir" ] || [ ! -e "$dir/cgroup.procs" ] || echo "$dir"
	done
}

# cgroup_home: the one tree in which our processes are kept together; unified has cgroup.kill.
cgroup_home() {
	if [ "$(cgroup_version)" = 2 ]; then
		echo $CGROUP_FS
	elif [ -e $CGROUP_FS/unified/cgroup.procs ]; then
		echo $CGROUP_FS/unified
	else
		echo $CGROUP_FS/pids
	fi
}

# cgroup_delegate DIR: let the children of DIR use each controller that DIR has (version 2).
# One by one: a controller that the kernel refuses must not take the others with it.
cgroup_delegate() {
	local controller
	for controller in $(<"$1/cgroup.controllers"); do
		grep -qw "$controller" "$1/cgroup.subtree_control" ||
			echo "+$controller" 2>/dev/null >"$1/cgroup.subtree_control" || true
	done
}

# cgroup_make: before the kubelet starts, which wants its root to be there with its controllers.
cgroup_make() {
	local tree dir file
	for tree in $(cgroup_trees); do
		for dir in "$tree/$CGROUP" "$tree/$CGROUP/node" "$tree/$CGROUP/services"; do
			mkdir -p "$dir" || die "can't make the cgroup $dir. In a container, run it privileged."
			# Version 1 starts a cpuset empty, and no process may enter an empty one.
			for file in cpuset.mems cpuset.cpus; do
				if [ -e "$tree/cgroup.clone_children" ] && [ -e "$dir/$file" ]; then
					cat "$dir/../$file" >"$dir/$file"
				fi
			done
		done
	done
	if [ "$(cgroup_version)" = 2 ]; then
		cgroup_delegate $CGROUP_FS
		cgroup_delegate "$CGROUP_FS/$CGROUP"
		[ "$MODE" = control ] || grep -qw memory "$CGROUP_FS/$CGROUP/node/cgroup.controllers" ||
			die "the memory controller can't be handed on in $CGROUP_FS: the kubelet wouldn't start. In a" \
				"container, move its processes out of the cgroup root first, or use a machine."
	fi
}

# cgroup_enter: move the calling shell in.
cgroup_enter() { echo "$BASHPID" >"$(cgroup_home)/$CGROUP/services/cgroup.procs"; }

cgroup_processes() {
	local dir
	dir=$(cgroup_home)/$CGROUP
	[ ! -d "$dir" ] || find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# cgroup_kill: end whatever is still in our tree, and wait.
cgroup_kill() {
	local dir tries=0 pid
	dir=$(cgroup_home)/$CGROUP
	while [ -n "$(cgroup_processes)" ]; do
		if [ -e "$dir/cgroup.kill" ]; then
			echo 1 >"$dir/cgroup.kill"
		else
			for pid in $(cgroup_processes); do kill -KILL "$pid" 2>/dev/null || true; done
		fi
		sleep 0.05
		[ $((tries += 1)) -lt 400 ] || die "processes in $dir don't end: $(cgroup_processes | xargs)"
	done
}

# cgroup_remove: the kernel refuses for a moment after the last process ended, so try for a while.
cgroup_remove() {
	local tree tries left
	for tries in $(seq 100); do
		left=
		for tree in $(cgroup_trees); do
			[ -d "$tree/$CGROUP" ] || continue
			find "$tree/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || left=$tree/$CGROUP
		done
		[ -n "$left" ] || return 0
		sleep 0.05
	done
	die "can't remove the cgroup $left."
}

cgroup_exists() {
	local tree
	for tree in $(cgroup_trees); do [ ! -d "$tree/$CGROUP" ] || return 0; done
	return 1
}
