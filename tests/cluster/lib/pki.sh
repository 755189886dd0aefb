# SPDX-License-Identifier: Apache-2.0
# One throw-away authority per cluster, the certificates under it and the kubeconfigs that hold them.
# RBAC's built-in roles know the names used here: nothing else has to be bound.
# shellcheck shell=bash

PKI_DAYS=30

pki_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }

# pki_certificate NAME SUBJECT USAGE [ALTERNATIVE NAMES]
pki_certificate() {
	local name=$1 subject=$2 usage=$3 alternatives=${4:-}
	pki_key "$name"
	{
		echo "basicConstraints=CA:FALSE"
		echo "keyUsage=critical,digitalSignature"
		echo "extendedKeyUsage=$usage"
		[ -z "$alternatives" ] || echo "subjectAltName=$alternatives"
	} >"$name.ext"
	openssl req -new -key "$name.key" -subj "$subject" 2>/dev/null |
		openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days $PKI_DAYS \
			-extfile "$name.ext" -out "$name.crt" 2>/dev/null
	rm "$name.ext"
}

# pki_kubeconfig NAME SERVER OUT
pki_kubeconfig() {
	cat >"$3" <<-YAML
		apiVersion: v1
		kind: Config
		clusters:
		- name: $NAME
		  cluster:
		    server: $2
		    certificate-authority-data: $(base64 -w0 ca.crt)
		users:
		- name: $1
		  user:
		    client-certificate-data: $(base64 -w0 "$1.crt")
		    client-key-data: $(base64 -w0 "$1.key")
		contexts:
		- name: $NAME
		  context: {cluster: $NAME, user: $1}
		current-context: $NAME
	YAML
}

# make_pki: fills $RUN/pki. Runs in a subshell: it changes folder and umask.
make_pki() (
	umask 077
	mkdir -p "$RUN/pki"
	cd "$RUN/pki"
	pki_key ca
	openssl req -x509 -new -key ca.key -subj /CN=prio-operator-test-cluster -days $PKI_DAYS -out ca.crt \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2>/dev/null

	names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
	names+=,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$API_SERVICE_IP,IP:$NODE_IP
	pki_certificate apiserver /CN=kube-apiserver serverAuth "$names"
	pki_certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
	pki_certificate front-proxy-client /CN=front-proxy-client clientAuth
	pki_certificate admin /O=system:masters/CN=admin clientAuth
	pki_certificate controller-manager /CN=system:kube-controller-manager clientAuth
	pki_certificate scheduler /CN=system:kube-scheduler clientAuth
	if [ "$MODE" = node ]; then
		pki_certificate kubelet "/CN=system:node:$NODE_NAME" serverAuth "DNS:$NODE_NAME,IP:$NODE_IP,IP:127.0.0.1"
		pki_certificate node "/O=system:nodes/CN=system:node:$NODE_NAME" clientAuth
		pki_certificate proxy /CN=system:kube-proxy clientAuth
		for user in node proxy; do pki_kubeconfig $user "https://127.0.0.1:$API_PORT" $user.kubeconfig; done
	fi
	openssl genrsa -out service-account.key 2048 2>/dev/null
	openssl rsa -in service-account.key -pubout -out service-account.pub 2>/dev/null

	for user in admin controller-manager scheduler; do
		pki_kubeconfig $user "https://127.0.0.1:$API_PORT" $user.kubeconfig
	done
	pki_kubeconfig admin "https://127.0.0.1:$HOST_PORT" "$RUN/kubeconfig"
)
