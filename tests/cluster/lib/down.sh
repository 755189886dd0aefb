# SPDX-License-Identifier: Apache-2.0
# Ends a cluster and removes all that it left. Safe to repeat, and after a crash at any point.
# shellcheck shell=bash

# end_processes: the first process takes its pid namespace along; whatever else there is sits in our cgroup.
end_processes() {
	end_recorded init
	end_recorded api-tunnel
	cgroup_kill
	cgroup_remove
}

# tear_down: with the lock held. All mounts were private to processes that have ended by now; a folder that
# something is mounted on all the same is left alone.
tear_down() {
	end_processes
	cd /
	rm -rf --one-file-system "$RUN"
	# The folders above the default place, when this was the last.
	if [ "$(dirname "$RUN")" = "$REPO/.run/clusters" ]; then
		rmdir "$REPO/.run/clusters" "$REPO/.run" 2>/dev/null || true
	fi
}

# clear_leftovers: the same before an `up`, which goes on to use the folder and its lock.
clear_leftovers() {
	end_processes
	find "$RUN" -mindepth 1 -maxdepth 1 ! -name marker -exec rm -rf --one-file-system {} +
}

down_cluster() {
	local start=$EPOCHREALTIME
	if [ ! -d "$RUN" ] && ! cgroup_exists; then
		say "cluster \"$NAME\" isn't up."
		return
	fi
	need_root "taking a cluster down"
	lock_run
	MODE=''
	load_env || true
	[ "$MODE" != kind ] || kind delete cluster --name "prio-operator-$NAME" >&2
	tear_down
	say "$(printf '%6s s  cluster "%s" is down' "$(seconds_since "$start")" "$NAME")"
}
