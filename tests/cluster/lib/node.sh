# SPDX-License-Identifier: Apache-2.0
# The node: containerd, kubelet, kube-proxy, the network policies and CoreDNS.
# Runs inside the cluster's namespaces (see init).
# shellcheck shell=bash

prepare_mounts() {
	mount --make-rshared /
	# Folders in which Kubernetes, containerd and CNI have fixed places: private ones, so that nothing is made
	# on the machine and two clusters don't meet.
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t tmpfs -o mode=755 tmpfs /var/lib
	mkdir -p /run/netns /run/containerd /run/lock /var/lib/kubelet /var/lib/cni
	mount --bind "$RUN/kubelet" /var/lib/kubelet
	mount --make-rshared /var/lib/kubelet
	mount --bind "$RUN/cni" /var/lib/cni
	mount --bind "$RUN/var-log" /var/log
}

# The kubelet writes these settings of the whole machine. It reads first: show it files that hold its values
# already, and it writes nothing.
shield_sysctls() {
	local path value
	while read -r path value; do
		[ -e "/proc/sys/$path" ] || continue
		echo "$value" >"$RUN/sysctl/${path//\//.}"
		mount --bind "$RUN/sysctl/${path//\//.}" "/proc/sys/$path"
	done <<-LIST
		vm/overcommit_memory 1
		vm/panic_on_oom 0
		kernel/panic 10
		kernel/panic_on_oops 1
		kernel/keys/root_maxkeys 1000000
		kernel/keys/root_maxbytes 25000000
	LIST
}

# All settings here belong to the network namespace. There is no way out of it.
prepare_network() {
	hostname "$NODE_NAME"
	ip link set lo up
	ip link add n0 type veth peer name n1
	ip link set n1 up
	ip address add "$NODE_IP/24" dev n0
	ip link set n0 up
	# Without a default route the node itself couldn't reach a Service.
	ip route add $SERVICE_CIDR dev n0
	echo 1 >/proc/sys/net/ipv4/ip_forward
	# Else the pods of one bridge would talk past iptables, and so past the policies.
	echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
	# Policies are for IPv4; nothing may pass beside them.
	echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables
	ip6tables -w -A INPUT -i lo -j ACCEPT
	ip6tables -w -P FORWARD DROP
	ip6tables -w -P INPUT DROP
}

containerd_answers() { "$CTR" --address "$RUN/containerd.sock" version; }

# import_images TAR...
import_images() {
	local tar
	for tar in "$@"; do
		"$CTR" --address "$RUN/containerd.sock" --namespace k8s.io images import "$tar" >/dev/null
	done
}

start_kubelet() {
	background kubelet "$KUBERNETES/kubelet" --config="$RUN/conf/kubelet.yaml" \
		--kubeconfig="$RUN/pki/node.kubeconfig" --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" \
		--root-dir=/var/lib/kubelet --cert-dir="$RUN/kubelet-certs"
}

start_network_policies() {
	background netpol "$PYTHON" -u "$CLUSTER_DIR/netpol.py" --server "https://127.0.0.1:$API_PORT" \
		--ca "$RUN/pki/ca.crt" --cert "$RUN/pki/admin.crt" --key "$RUN/pki/admin.key"
}

node_ready() {
	inner_kubectl get node "$NODE_NAME" \
		--output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True
}

dns_ready() {
	inner_kubectl --namespace kube-system get deployment coredns \
		--output 'jsonpath={.status.readyReplicas}' | grep -q 1
}

start_node() {
	prepare_mounts
	shield_sysctls
	prepare_network
	background containerd "$CONTAINERD" --config "$RUN/conf/containerd.toml"
	start_control_plane
	background api-socket socat "UNIX-LISTEN:$RUN/api.sock,fork,mode=600" "TCP:127.0.0.1:$API_PORT"
	wait_for 60 "the manifests of CoreDNS" kube-apiserver \
		inner_kubectl apply --server-side --filename "$CLUSTER_DIR/conf/coredns.yaml"
	wait_for 60 containerd containerd containerd_answers
	stage "images are imported" import_images "$IMAGES"/*.tar
	start_kubelet
	background kube-proxy "$KUBERNETES/kube-proxy" --config="$RUN/conf/kube-proxy.yaml"
	start_network_policies
	wait_control_plane
	stage "the node is Ready" wait_for 180 "the node" kubelet node_ready
	stage "CoreDNS is ready" wait_for 180 CoreDNS kubelet dns_ready
	wait_for 30 "network policies" netpol iptables -w -C FORWARD -j NETPOL
}
