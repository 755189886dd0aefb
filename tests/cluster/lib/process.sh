# SPDX-License-Identifier: Apache-2.0
# Processes that we started, by number *and* start time: a number alone may belong to someone else by now.
# shellcheck shell=bash

# start_time PID: clock ticks since boot at which it started. Fails when there is no such process.
start_time() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	# The second field is the command in brackets and may hold blanks: count from behind it.
	read -ra stat <<<"${stat##*) }"
	[ "${stat[0]}" != Z ] || return 1
	printf '%s\n' "${stat[19]}"
}

# record NAME PID
record() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$RUN/pids/$1"; }

# recorded_pid NAME: prints the number if that very process still runs, else fails.
recorded_pid() {
	local pid started
	read -r pid started 2>/dev/null <"$RUN/pids/$1" || return 1
	[ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] || return 1
	printf '%s\n' "$pid"
}

# end_recorded NAME: kill it and wait until it is gone.
end_recorded() {
	local pid tries=0
	pid=$(recorded_pid "$1") || return 0
	kill -KILL "$pid" 2>/dev/null || true
	while recorded_pid "$1" >/dev/null; do
		sleep 0.05
		[ $((tries += 1)) -lt 400 ] || die "process $pid ($1) doesn't end."
	done
}
