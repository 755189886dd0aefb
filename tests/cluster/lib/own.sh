# SPDX-License-Identifier: Apache-2.0
# Clusters that others made: the user's own, named by a kubeconfig, and kind where docker works.
# shellcheck shell=bash

own_up() {
	"$(any_kubectl)" --kubeconfig "$KUBECONFIG_GIVEN" --request-timeout=10s get --raw /readyz >/dev/null ||
		die "the cluster of $KUBECONFIG_GIVEN doesn't answer."
	say "the cluster of $KUBECONFIG_GIVEN answers; nothing is started."
}

# any_kubectl: ours, else the user's. A cluster of one's own must not need a set-up.
any_kubectl() {
	if [ -x "$KUBECTL" ]; then
		echo "$KUBECTL"
	else
		type -P kubectl || die "no kubectl: run \"tests/cluster/cluster setup\"."
	fi
}

any_helm() {
	if [ -x "$HELM" ]; then
		echo "$HELM"
	else
		type -P helm || die "no helm: run \"tests/cluster/cluster setup\"."
	fi
}

kind_up() {
	local program
	for program in docker kind; do
		type -P $program >/dev/null || die "\"up kind\" needs $program on PATH; \"up node\" doesn't."
	done
	docker info >/dev/null 2>&1 || die "docker doesn't answer; \"up node\" doesn't need it."
	lock_run
	if is_up; then
		[ "$MODE" = kind ] || die "cluster \"$NAME\" is up in mode $MODE: take it down first, or give another --name."
		say "cluster \"$NAME\" is up already."
		return
	fi
	MODE=kind
	kind delete cluster --name "prio-operator-$NAME" >/dev/null 2>&1 || true
	printf 'MODE=kind\n' >"$RUN/env"
	kind create cluster --name "prio-operator-$NAME" --kubeconfig "$RUN/kubeconfig" --wait 180s >&2
	touch "$RUN/up"
}
