# SPDX-License-Identifier: Apache-2.0
"""Installation and the three admission policies on a real API server."""

import copy
import json

from harness import CHARTS, EXAMPLES, apply, create, as_user, check, eventually, helm, kubectl, load

OPERATOR_NAMESPACE, WORKERS_NAMESPACE = "chart-test-operator", "chart-test-workers"
OPERATOR = f"{OPERATOR_NAMESPACE}/prio-operator"
KEYS = f"{OPERATOR_NAMESPACE}/prio-operator-keys"
IMAGE = "registry.example/facilitator:1"


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def role(name, subject, rules):
    """A Role in the workers' namespace and its binding to a user."""
    head = {"name": name, "namespace": WORKERS_NAMESPACE}
    group = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": head, "rules": rules},
        {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": head,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": subject}],
        },
    )


def processor():
    (item,) = load(EXAMPLES / "minimal-party/processor.yaml")
    item["metadata"] = {"name": "policy-test", "namespace": WORKERS_NAMESPACE}
    return item


def job():
    """A Job as the operator makes them."""
    restricted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    mount = {"name": "signing", "mountPath": "/etc/prio-operator/keys/batch-signing", "readOnly": True}
    container = {
        "name": "work", "image": IMAGE, "args": ["work"], "securityContext": restricted, "volumeMounts": [mount],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
    }
    pod = {
        "restartPolicy": "Never", "serviceAccountName": "intake", "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "signing", "secret": {"secretName": "batch-signing"}},
            {"name": "packets", "secret": {"secretName": "packet-decryption"}},
            {"name": "work", "configMap": {"name": "work"}},
            {"name": "ledger", "persistentVolumeClaim": {"claimName": "ledger"}},
        ],
    }
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work", "namespace": WORKERS_NAMESPACE},
        "spec": {"completions": 1, "completionMode": "Indexed", "template": {"spec": pod}},
    }


def changed(change):
    item = job()
    change(item["spec"]["template"]["spec"])
    return item


@check
def install_cluster():
    """the cluster's chart installs, and its policies' expressions are well typed"""
    helm("upgrade", "--install", "prio-operator-cluster", CHARTS / "prio-operator-cluster", "--namespace",
         "prio-operator-system", "--create-namespace", "--take-ownership")
    for name in ("datashareprocessors", "batches", "aggregationwindows", "peers", "keyrings"):
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}.prio-operator.io")

    def typed():
        for name in ("prio-operator-authors", "prio-operator-workloads", "prio-operator-approvals", "prio-operator-keys"):
            status = json.loads(kubectl("get", "validatingadmissionpolicy", name, "-o", "json")).get("status", {})
            assert "typeChecking" in status, f"{name} is not checked yet"
            assert not status["typeChecking"].get("expressionWarnings"), status
    eventually(typed)


@check
def install_party():
    """an admin of both namespaces, without any right in the cluster, installs a party"""
    # Left by a run before this one, on a cluster that stays.
    kubectl("delete", "namespace", OPERATOR_NAMESPACE, WORKERS_NAMESPACE, "--ignore-not-found", "--timeout=60s")
    apply(namespace(OPERATOR_NAMESPACE), namespace(WORKERS_NAMESPACE))
    for name in (OPERATOR_NAMESPACE, WORKERS_NAMESPACE):
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "admin", "namespace": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "party-admin"}],
        }
        apply(binding)
    flags = ["--namespace", OPERATOR_NAMESPACE, "--kube-as-user", "party-admin", "--set", f"watchNamespaces={{{WORKERS_NAMESPACE}}}",
             "--set-string", "workers.image.repository=registry.example/facilitator,workers.image.tag=1",
             "--set", "workers.secrets={batch-signing,packet-decryption},workers.keyRings={packets},keys.enabled=true"]
    # The controller that aggregates roles may need a moment after the cluster's chart.
    notes = eventually(lambda: helm("upgrade", "--install", "prio-operator", CHARTS / "prio-operator", *flags))
    assert "kubectl -n chart-test-workers get datashareprocessors" in notes, notes


@check
def operator_rights():
    """the operator may do its work, and may not read Secrets nor change the lists"""
    allowed = ["create jobs.batch", "create batches.prio-operator.io", "patch datashareprocessors.prio-operator.io/status",
               "watch peers.prio-operator.io", "patch peers.prio-operator.io/status",
               "create events.events.k8s.io", "update leases.coordination.k8s.io", "create configmaps", "list pods"]
    refused = ["get secrets", "list secrets", "create pods", "patch roles.rbac.authorization.k8s.io", "escalate roles.rbac.authorization.k8s.io",
               "bind roles.rbac.authorization.k8s.io", "update datashareprocessors.prio-operator.io", "patch jobs.batch", "delete configmaps", "patch configmaps", "create peers.prio-operator.io", "patch peers.prio-operator.io", "create serviceaccounts/token",
               "impersonate serviceaccounts", "create pods/exec", "get pods/log", "list namespaces"]
    kubectl("get", "crd", "batches.prio-operator.io", *as_user(OPERATOR))
    for verdict, questions in (("yes", allowed), ("no", refused)):
        for question in questions:
            verb, resource = question.split()
            resource, _, sub = resource.partition("/")
            arguments = ["auth", "can-i", verb, resource, *(["--subresource", sub] if sub else []), "-n", WORKERS_NAMESPACE]
            if verdict == "yes":
                assert kubectl(*arguments, *as_user(OPERATOR)).strip() == "yes", question
            else:
                kubectl(*arguments, *as_user(OPERATOR), fails=True)


@check
def authors():
    """an author needs each named Secret and both accounts; the refusal says which is missing"""
    author = "processor-author"
    edits = {"apiGroups": ["prio-operator.io"], "resources": ["datashareprocessors"],
             "verbs": ["get", "create", "patch", "update", "delete"]}
    get = lambda *names: {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(names), "verbs": ["get"]}  # noqa: E731
    be = lambda *names: {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": list(names), "verbs": ["impersonate"]}  # noqa: E731
    steps = [
        ([], "spec.keys.batchSigning names Secret batch-signing, which you may not get"),
        ([get("batch-signing")], "spec.keys.packetDecryption names Secret packet-decryption, which you may not get"),
        ([get("batch-signing", "packet-decryption")], "spec.workers.intake names service account intake, which you may not impersonate"),
        ([get("batch-signing", "packet-decryption"), be("intake")], "spec.workers.aggregate names service account aggregate"),
    ]
    for rules, message in steps:
        apply(*role("author", author, [edits, *rules]))

        def refused(message=message):
            said = apply(processor(), dry=True, user=author, fails=True)
            assert "ValidatingAdmissionPolicy 'prio-operator-authors'" in said and message in said, said
        eventually(refused)
    apply(*role("author", author, [edits, get("batch-signing", "packet-decryption"), be("intake", "aggregate")]))
    eventually(lambda: apply(processor(), user=author))
    # A Secret named later counts as well, as the last of twelve keys; and a pull Secret.
    more = processor()
    more["spec"]["keys"]["packetDecryption"] = [{"secretRef": {"name": "packet-decryption"}}]
    apply(*role("author", author, [edits, get("batch-signing", "packet-decryption", *(f"old-{n}" for n in range(10))), be("intake", "aggregate")]))
    more["spec"]["keys"]["packetDecryption"] += [{"secretRef": {"name": f"old-{n}"}} for n in range(11)]
    eventually(lambda: contains(apply(more, dry=True, user=author, fails=True), "names Secret old-10"))
    more = processor()
    more["spec"]["workers"]["imagePullSecrets"] = [{"name": "pull"}]
    contains(apply(more, dry=True, user=author, fails=True), "spec.workers.imagePullSecrets names Secret pull")
    # And the Secrets of mailboxes, each of them; the operator's own are in another namespace, and listed there.
    kept = {"url": "gs://bucket", "credentials": {"anonymous": {}}, "operatorCredentials": {"secretRef": {"name": "list"}}}
    more = processor()
    more["spec"]["mailboxes"]["ingestion"] = kept
    apply(more, dry=True, user=author)
    for place in ("ingestion", "peerValidation", "ledger", "outgoing.peer", "outgoing.portal"):
        more = processor()
        mailboxes = more["spec"]["mailboxes"]
        for part in place.split(".")[:-1]:
            mailboxes = mailboxes[part]
        mailboxes[place.split(".")[-1]] = {"url": "gs://bucket", "credentials": {"secretRef": {"name": "store"}}}
        if place != "ledger":  # Another ledger is refused before.
            contains(apply(more, dry=True, user=author, fails=True), f"spec.mailboxes.{place}.credentials names Secret store")
    # A KeyRing is named by whoever may use it.
    more = processor()
    more["spec"]["keys"] = {"batchSigning": {"keyRingRef": {"name": "signing"}},
                            "packetDecryption": [{"secretRef": {"name": "packet-decryption"}}, {"keyRingRef": {"name": "packets"}}]}
    use = lambda *names: {"apiGroups": ["prio-operator.io"], "resources": ["keyrings"], "resourceNames": list(names), "verbs": ["use"]}  # noqa: E731
    rights = [edits, get("packet-decryption"), be("intake", "aggregate")]
    for rules, message in (([], "spec.keys.batchSigning names KeyRing signing, which you may not use"),
                           ([use("signing")], "spec.keys.packetDecryption names KeyRing packets, which you may not use")):
        apply(*role("author", author, [*rights, *rules]))
        eventually(lambda message=message: contains(apply(more, dry=True, user=author, fails=True), message))
    apply(*role("author", author, [*rights, use("signing", "packets")]))
    eventually(lambda: apply(more, dry=True, user=author))
    # Who may not use the keys may still label; and delete.
    apply(*role("author", author, [edits]))
    eventually(lambda: apply(more, dry=True, user=author, fails=True))
    labelled = processor()
    labelled["metadata"]["labels"] = {"team": "prio"}
    apply(labelled, user=author)
    kubectl("delete", "datashareprocessor", "policy-test", "-n", WORKERS_NAMESPACE, *as_user(author))


@check
def approvals():
    """an override is approved by whoever may, under their own name; others may ask for it"""
    editor, approver = "window-editor", "privacy-officer"
    edits = {"apiGroups": ["prio-operator.io"], "resources": ["aggregationwindows"], "verbs": ["get", "patch", "update"]}
    approves = lambda name: {"apiGroups": ["prio-operator.io"], "resources": ["overrides"], "resourceNames": [name], "verbs": ["approve"]}  # noqa: E731
    window = {
        "apiVersion": "prio-operator.io/v1alpha1", "kind": "AggregationWindow",
        "metadata": {"name": "policy-test", "namespace": WORKERS_NAMESPACE},
        "spec": {"processor": "us-ct", "aggregation": "kittens-seen", "start": "202611200000", "end": "202611200800"},
    }

    def asked(by=None, **more):
        item = copy.deepcopy(window)
        item["spec"]["override"] = {
            "release": 2, "cutoff": "2026-11-28T12:00:00Z", "expiresAt": "2026-11-30T00:00:00Z", "reason": "late batches",
            **({"approvedBy": by} if by else {}), **more,
        }
        return item

    def refused(said, message):
        assert "ValidatingAdmissionPolicy 'prio-operator-approvals'" in said and message in said, said
    apply(window)
    apply(*role("editor", editor, [edits]), *role("approver", approver, [edits, approves("us-ct")]))
    eventually(lambda: apply(asked(), user=editor))
    refused(apply(asked(editor), dry=True, user=editor, fails=True), "you may not approve overrides of us-ct")
    refused(apply(asked(approver), dry=True, user=editor, fails=True), "must be your own name, window-editor")
    refused(apply(asked(editor), dry=True, user=approver, fails=True), "must be your own name, privacy-officer")
    refused(create({**asked(editor), "metadata": {"name": "other", "namespace": WORKERS_NAMESPACE}}, dry=True, user=OPERATOR, fails=True),
            "must be your own name")
    eventually(lambda: apply(asked(approver), user=approver))
    # What was approved stands: others may label the window, or take the override out, not change it.
    labelled = asked(approver)
    labelled["metadata"]["labels"] = {"team": "prio"}
    apply(labelled, user=editor)
    refused(apply(asked(approver, release=3), dry=True, user=editor, fails=True), "must be your own name")
    # Asking for a later one is no approval.
    apply(asked(release=3), dry=True, user=editor)
    kubectl("patch", "aggregationwindow", "policy-test", "-n", WORKERS_NAMESPACE, "--type=json", "-p",
            '[{"op": "remove", "path": "/spec/override"}]', *as_user(editor))
    # By the name of the processor.
    apply(*role("approver", approver, [edits, approves("us-va")]))
    eventually(lambda: refused(apply(asked(approver), dry=True, user=approver, fails=True), "you may not approve overrides of us-ct"))
    kubectl("delete", "aggregationwindow", "policy-test", "-n", WORKERS_NAMESPACE)


@check
def without_lease():
    """without leader election an upgrade never runs two operators, also where the default strategy stood before"""
    flags = ["--namespace", OPERATOR_NAMESPACE, "--reuse-values"]
    strategy = lambda: json.loads(kubectl("get", "deployment", "prio-operator", "-n", OPERATOR_NAMESPACE, "-o", "json"))["spec"]["strategy"]  # noqa: E731
    assert strategy()["type"] == "RollingUpdate"
    helm("upgrade", "prio-operator", CHARTS / "prio-operator", *flags, "--set", "leaderElection=false")
    assert strategy() == {"type": "Recreate"}, strategy()
    helm("upgrade", "prio-operator", CHARTS / "prio-operator", *flags, "--set", "leaderElection=true")
    assert strategy()["type"] == "RollingUpdate", strategy()


def contains(text, part):
    assert part in text, text


@check
def workloads():
    """the operator's Jobs use only what is listed, and nothing of the node; others' Jobs are left alone"""
    eventually(lambda: create(job(), dry=True, user=OPERATOR))
    # Every version of a listed KeyRing, and no other's.
    mount = lambda name: changed(lambda pod: pod["volumes"].append({"name": "more", "secret": {"secretName": name}}))  # noqa: E731
    create(mount("packets.1700000000"), dry=True, user=OPERATOR)
    for name in ("signing.1700000000", "packets.1700000000.backup", "packets.versions", "packets", "other.packets.1700000000"):
        contains(create(mount(name), dry=True, user=OPERATOR, fails=True), f"Secret {name} is not listed")
    volume = lambda pod, **kind: pod["volumes"].append({"name": "more", **kind})  # noqa: E731
    container = lambda pod: pod["containers"][0]  # noqa: E731
    other = {"name": "other", "image": IMAGE, "securityContext": {"allowPrivilegeEscalation": False}}
    bad = [
        (lambda pod: volume(pod, hostPath={"path": "/"}), "only have volumes of the kinds"),
        (lambda pod: volume(pod, projected={"sources": []}), "only have volumes of the kinds"),
        (lambda pod: pod.update(hostNetwork=True), "node's namespaces"),
        (lambda pod: pod.update(hostPID=True), "node's namespaces"),
        (lambda pod: pod.update(hostIPC=True), "node's namespaces"),
        (lambda pod: pod["containers"].append(other), "exactly one container"),
        (lambda pod: pod.update(initContainers=[other]), "exactly one container"),
        (lambda pod: pod.update(automountServiceAccountToken=True), "automountServiceAccountToken: false"),
        (lambda pod: pod.pop("automountServiceAccountToken"), "automountServiceAccountToken: false"),
        (lambda pod: container(pod).update(envFrom=[{"secretRef": {"name": "batch-signing"}}]), "in their environment"),
        (lambda pod: container(pod)["env"].append({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "batch-signing", "key": "key"}}}),
         "in their environment"),
        (lambda pod: container(pod)["env"].append({"name": "LD_PRELOAD", "value": "/mailboxes/ledger/x.so"}), "nothing but POD_UID"),
        (lambda pod: container(pod).update(args=["sample"]), "args: [work]"),
        (lambda pod: container(pod).update(args=["work", "--parameters=/mailboxes/ledger/p.json"]), "args: [work]"),
        (lambda pod: container(pod).pop("args"), "args: [work]"),
        (lambda pod: container(pod).update(command=["/bin/sh"]), "have no command"),
        (lambda pod: container(pod).update(lifecycle={"postStart": {"exec": {"command": ["/bin/sh"]}}}), "no probes and no lifecycle hooks"),
        (lambda pod: container(pod).update(livenessProbe={"exec": {"command": ["/bin/sh"]}}), "no probes and no lifecycle hooks"),
        (lambda pod: pod.pop("securityContext"), "runAsNonRoot: true"),
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot: true"),
        (lambda pod: container(pod)["securityContext"].update(runAsNonRoot=False), "runAsNonRoot: true"),
        (lambda pod: container(pod)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "may not add capabilities"),
        (lambda pod: container(pod).update(securityContext={"privileged": True}), "may not be privileged"),
        (lambda pod: container(pod).pop("securityContext"), "may not be privileged"),
        (lambda pod: container(pod).update(image="registry.example/other:1"), "image registry.example/other:1 is not listed"),
        (lambda pod: pod.update(serviceAccountName="default"), "service account default is not listed"),
        (lambda pod: pod.pop("serviceAccountName"), "service account default is not listed"),
        (lambda pod: volume(pod, secret={"secretName": "database"}), "Secret database is not listed"),
        (lambda pod: pod.update(imagePullSecrets=[{"name": "database"}]), "Secret database is not listed"),
        (lambda pod: pod["volumes"].extend({"name": f"n{n}", "secret": {"secretName": "batch-signing"}} for n in range(24)), "at most 25 Secrets"),
    ]
    for change, message in bad:
        said = create(changed(change), dry=True, user=OPERATOR, fails=True)
        assert "ValidatingAdmissionPolicy 'prio-operator-workloads'" in said and message in said, f"{message}: {said}"
        apply(changed(change), dry=True)
    # What the operator makes, as its own tests have frozen it, but for the names that this party lists.
    for path in sorted((CHARTS.parent / "operator/tests/golden").glob("job-*.json")):
        (own,) = [item for item in json.loads(path.read_text()) if item["kind"] == "Job"]
        own["metadata"]["namespace"] = WORKERS_NAMESPACE
        pod = own["spec"]["template"]["spec"]
        container(pod)["image"] = IMAGE
        for entry in pod["volumes"]:
            if "secret" in entry:
                entry["secret"]["secretName"] = "batch-signing"
        create(own, dry=True, user=OPERATOR)
    # 25 Secrets: more questions to the authorizer than one expression may ask.
    many = changed(lambda pod: pod["volumes"].extend({"name": f"n{n}", "secret": {"secretName": "batch-signing"}} for n in range(23)))
    create(many, dry=True, user=OPERATOR)


@check
def lists_bind():
    """what is taken off a list is refused; with no list at all, everything is"""
    lists = json.loads(kubectl("get", "role", "prio-operator-workloads", "-n", WORKERS_NAMESPACE, "-o", "json"))
    shorter = copy.deepcopy(lists)
    shorter["rules"] = [rule for rule in lists["rules"] if rule["resources"] != ["workersecrets"]]
    patch = lambda rules: kubectl("patch", "role", "prio-operator-workloads", "-n", WORKERS_NAMESPACE, "--type=merge", "-p", json.dumps({"rules": rules}))  # noqa: E731
    patch(shorter["rules"])
    eventually(lambda: contains(create(job(), dry=True, user=OPERATOR, fails=True), "Secret batch-signing is not listed"))
    patch([])
    eventually(lambda: contains(create(job(), dry=True, user=OPERATOR, fails=True), "is not listed"))
    patch(lists["rules"])
    eventually(lambda: create(job(), dry=True, user=OPERATOR))


def key_secret(name="packets.1700000000", **changes):
    """A Secret as the keys controller makes them."""
    kind = "wrapped-key" if name.endswith(".backup") else "private-key"
    return {
        "apiVersion": "v1", "kind": "Secret", "type": f"prio-operator.io/{kind}", "immutable": True, "data": {"key": "aw=="},
        "metadata": {"name": name, "namespace": WORKERS_NAMESPACE, "labels": {"prio-operator.io/key-ring": "packets"}}, **changes,
    }


@check
def keys_controller():
    """the keys controller makes a KeyRing's Secrets and ConfigMaps, and can do nothing else with any"""
    config_map = lambda name: {k: v for k, v in key_secret(name).items() if k not in ("type", "data")} | {"kind": "ConfigMap", "data": {"a": "b"}}  # noqa: E731
    eventually(lambda: create(key_secret(), dry=True, user=KEYS))
    for good in (key_secret("packets.1700000000.backup"), config_map("packets.versions"), config_map("packets.public")):
        create(good, dry=True, user=KEYS)
    metadata = key_secret()["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}
    bad = [
        (key_secret("database"), "Secret database is none of a KeyRing"),
        (key_secret("packets"), "none of a KeyRing"),
        (key_secret("packets.first"), "none of a KeyRing"),
        (key_secret("packets.1.other"), "none of a KeyRing"),
        (key_secret(metadata=metadata | {"labels": {"prio-operator.io/key-ring": "signing"}}), "must be the KeyRing's name"),
        (key_secret(metadata={k: v for k, v in metadata.items() if k != "labels"}), "must be the KeyRing's name"),
        (key_secret(metadata=metadata | {"ownerReferences": [owner]}), "belong to nobody"),
        (key_secret(immutable=False), "are immutable"),
        (key_secret(type="Opaque"), "of type prio-operator.io/private-key"),
        (key_secret(type="kubernetes.io/service-account-token", metadata=metadata | {"annotations": {"kubernetes.io/service-account.name": "default"}}),
         "prio-operator.io/private-key"),
        (key_secret("packets.1.backup", type="prio-operator.io/private-key"), "wrapped-key"),
        (config_map("packets.1"), "ConfigMap packets.1 is none of a KeyRing"),
        (config_map("us-ct-parameters-1"), "none of a KeyRing"),
    ]
    for item, message in bad:
        said = create(item, dry=True, user=KEYS, fails=True)
        assert message in said, said
    # People make Secrets of any name: the policy holds the keys controller.
    create(key_secret("database"), dry=True)
    create(key_secret(), user=KEYS)
    for verb in ("get", "list", "delete", "patch", "update"):
        kubectl("auth", "can-i", verb, "secrets", "-n", WORKERS_NAMESPACE, *as_user(KEYS), fails=True)
    for verb, resource in (("create", "pods"), ("create", "jobs.batch"), ("delete", "configmaps"), ("update", "keyrings.prio-operator.io"),
                           ("update", "datashareprocessors.prio-operator.io"), ("patch", "datashareprocessors.prio-operator.io/status")):
        resource, _, sub = resource.partition("/")
        kubectl("auth", "can-i", verb, resource, *(["--subresource", sub] if sub else []), "-n", WORKERS_NAMESPACE, *as_user(KEYS), fails=True)
    # Even with more rights than the chart gives, nothing that is there is changed or deleted.
    apply(*role("keys-more", "system:serviceaccount:" + KEYS.replace("/", ":"), [{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["*"]}]))
    name = metadata["name"]
    eventually(lambda: contains(kubectl("delete", "secret", name, "-n", WORKERS_NAMESPACE, *as_user(KEYS), fails=True), "may only create Secrets"))
    contains(kubectl("label", "secret", name, "a=b", "-n", WORKERS_NAMESPACE, *as_user(KEYS), fails=True), "may only create Secrets")
    kubectl("delete", "rolebinding", "keys-more", "-n", WORKERS_NAMESPACE)
    kubectl("delete", "secret", name, "-n", WORKERS_NAMESPACE)


@check
def uninstall():
    """helm uninstall leaves the definitions, and with them every processor"""
    helm("uninstall", "prio-operator", "--namespace", OPERATOR_NAMESPACE)
    helm("uninstall", "prio-operator-cluster", "--namespace", "prio-operator-system")
    kubectl("get", "crd", "datashareprocessors.prio-operator.io")
    kubectl("get", "validatingadmissionpolicy", "prio-operator-authors", fails=True)
    helm("upgrade", "--install", "prio-operator-cluster", CHARTS / "prio-operator-cluster", "--namespace",
         "prio-operator-system", "--create-namespace")
    kubectl("delete", "namespace", OPERATOR_NAMESPACE, WORKERS_NAMESPACE, "--wait=false")
