# SPDX-License-Identifier: Apache-2.0
# The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, all on loopback.
# Runs inside the cluster's namespaces (see init).
# shellcheck shell=bash

# background NAME COMMAND...: start it detached, with a log of its own.
background() {
	local name=$1
	shift
	setsid "$@" >"$RUN/log/$name.log" 2>&1 </dev/null &
	echo $! >"$RUN/inner-pids/$name"
}

# dead_part: prints the name of a part that has ended, if there is one.
dead_part() {
	local file
	for file in "$RUN"/inner-pids/*; do
		kill -0 "$(<"$file")" 2>/dev/null || { basename "$file" && return; }
	done
	return 1
}

# wait_for SECONDS WHAT LOG COMMAND...: until COMMAND succeeds. Fails at once when any part ends.
wait_for() {
	local end=$((SECONDS + $1)) what=$2 log=$3 dead
	shift 3
	until "$@" >/dev/null 2>&1; do
		if dead=$(dead_part); then
			say "$what isn't there, because $dead has ended. The end of its log:"
			tail -n 10 "$RUN/log/$dead.log" | cut -c1-400 >&2
			return 1
		elif [ $SECONDS -ge $end ]; then
			say "$what isn't there in time. The end of $log's log:"
			tail -n 10 "$RUN/log/$log.log" | cut -c1-400 >&2
			return 1
		fi
		sleep 0.1
	done
}

start_etcd() {
	local client=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT flags=()
	# Nothing here must outlive a power cut. Version 3.4 doesn't know the flag.
	if "$ETCD" --help 2>&1 | grep -q unsafe-no-fsync; then flags+=(--unsafe-no-fsync); fi
	mkdir -m 700 "$RUN/etcd"
	background etcd "$ETCD" --name a --data-dir "$RUN/etcd" --initial-cluster "a=$peer" \
		--listen-client-urls "$client" --advertise-client-urls "$client" \
		--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
		--snapshot-count 10000 --quota-backend-bytes 4294967296 --logger zap --log-level warn "${flags[@]}"
}

start_apiserver() {
	local pki=$RUN/pki flags=()
	if [ "$MODE" = node ]; then
		flags+=(--advertise-address="$NODE_IP" --bind-address=0.0.0.0)
		flags+=(--kubelet-client-certificate="$pki/apiserver-kubelet-client.crt")
		flags+=(--kubelet-client-key="$pki/apiserver-kubelet-client.key")
		flags+=(--kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP)
	else
		# There is no network in which a Service could point at loopback.
		flags+=(--advertise-address=127.0.0.1 --bind-address=127.0.0.1 --endpoint-reconciler-type=none)
	fi
	read -ra extra <<<"${PRIO_OPERATOR_APISERVER_FLAGS:-}"
	background kube-apiserver "$KUBERNETES/kube-apiserver" \
		--etcd-servers="http://127.0.0.1:$ETCD_PORT" --secure-port="$API_PORT" \
		--service-cluster-ip-range=$SERVICE_CIDR --allow-privileged=true \
		--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
		--client-ca-file="$pki/ca.crt" --cert-dir="$RUN/apiserver" \
		--tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-key-file="$pki/service-account.pub" \
		--service-account-signing-key-file="$pki/service-account.key" \
		--requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy-client \
		--requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
		--requestheader-extra-headers-prefix=X-Remote-Extra- \
		--proxy-client-cert-file="$pki/front-proxy-client.crt" \
		--proxy-client-key-file="$pki/front-proxy-client.key" --enable-aggregator-routing=true \
		--profiling=false --shutdown-delay-duration=0s "${flags[@]}" "${extra[@]}"
}

# The default client limits (20 calls a second) would make the start and every Job crawl.
start_controller_manager() {
	local pki=$RUN/pki
	background kube-controller-manager "$KUBERNETES/kube-controller-manager" \
		--kubeconfig="$pki/controller-manager.kubeconfig" \
		--authentication-kubeconfig="$pki/controller-manager.kubeconfig" \
		--authorization-kubeconfig="$pki/controller-manager.kubeconfig" \
		--bind-address=127.0.0.1 --secure-port="$CONTROLLER_MANAGER_PORT" \
		--tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-private-key-file="$pki/service-account.key" --root-ca-file="$pki/ca.crt" \
		--cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
		--use-service-account-credentials=true --service-cluster-ip-range=$SERVICE_CIDR \
		--cluster-cidr=$POD_CIDR --allocate-node-cidrs=false \
		--kube-api-qps=300 --kube-api-burst=600 --leader-elect=false --profiling=false
}

start_scheduler() {
	local pki=$RUN/pki
	background kube-scheduler "$KUBERNETES/kube-scheduler" \
		--kubeconfig="$pki/scheduler.kubeconfig" \
		--authentication-kubeconfig="$pki/scheduler.kubeconfig" \
		--authorization-kubeconfig="$pki/scheduler.kubeconfig" \
		--bind-address=127.0.0.1 --secure-port="$SCHEDULER_PORT" \
		--tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--kube-api-qps=300 --kube-api-burst=600 --leader-elect=false --profiling=false
}

api_ready() {
	curl --silent --fail --max-time 5 --cacert "$RUN/pki/ca.crt" --cert "$RUN/pki/admin.crt" \
		--key "$RUN/pki/admin.key" "https://127.0.0.1:$1/readyz"
}

inner_kubectl() { "$KUBECTL" --kubeconfig "$RUN/pki/admin.kubeconfig" "$@"; }

start_control_plane() {
	start_etcd
	start_apiserver
	stage "the API server is ready" wait_for 180 "the API server" kube-apiserver api_ready "$API_PORT"
	start_controller_manager
	start_scheduler
}

# The default ServiceAccount is the controller manager's sign of life; no pod starts before it.
wait_control_plane() {
	stage "controllers work" wait_for 120 "the default ServiceAccount" kube-controller-manager \
		inner_kubectl --namespace default get serviceaccount default
}
