# SPDX-License-Identifier: Apache-2.0
"""Checks of what the charts render to; no cluster is needed."""

import json

import kubernetes_validate

from harness import CHARTS, check, helm, load, render, values_files, EXAMPLES

CHART_NAMES = ("prio-operator-cluster", "prio-operator")
CLUSTER_SCOPED = {
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PersistentVolume", "PriorityClass",
    "StorageClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration", "APIService",
}
KUBERNETES = "1.34"


def every_rendering(chart):
    """(values file, objects) for each values file."""
    return [(path, render(chart, "--values", path)) for path in values_files(chart)]


def of_kind(objects, kind):
    """The objects of a kind, by namespace and name."""
    return {
        (item["metadata"].get("namespace"), item["metadata"]["name"]): item for item in objects if item["kind"] == kind
    }


@check
def lint():
    """helm lint --strict passes with every values file"""
    for chart in CHART_NAMES:
        for path in values_files(chart):
            helm("lint", "--strict", CHARTS / chart, "--values", path)


@check
def schemas():
    """rendered objects are valid by the Kubernetes schemas"""
    count = 0
    for chart in CHART_NAMES:
        for path, objects in every_rendering(chart):
            for item in objects:
                # The schemas know builtin kinds; definitions and policies go to a real API server further down.
                if item["apiVersion"].startswith("monitoring.coreos.com/"):
                    continue
                try:
                    kubernetes_validate.validate(item, KUBERNETES, strict=True)
                except kubernetes_validate.ValidationError as error:
                    where = ".".join(str(part) for part in error.path)
                    raise AssertionError(f"{path.name}: {item['kind']} {item['metadata']['name']}: {where}: {error.message}")
                count += 1
    assert count > 50, count


@check
def namespaced():
    """the party's chart renders nothing cluster-scoped, and no wildcard"""
    for path, objects in every_rendering("prio-operator"):
        for item in objects:
            assert item["kind"] not in CLUSTER_SCOPED, f"{path.name}: {item['kind']}"
            assert item["metadata"].get("namespace"), f"{path.name}: {item['kind']} without a namespace"
            for rule in item.get("rules", []):
                assert "*" not in str(rule), f"{path.name}: {rule}"


@check
def no_secrets():
    """no role of an operator speaks of Secrets or of running commands"""
    renderings = every_rendering("prio-operator") + every_rendering("prio-operator-cluster")
    for path, objects in renderings:
        for kind in ("Role", "ClusterRole"):
            for (_, name), role in of_kind(objects, kind).items():
                for rule in role["rules"]:
                    refused = {"secrets", "pods/exec", "pods/attach", "pods/log", "serviceaccounts/token", "roles"}
                    # The keys controller makes Secrets, and does nothing else with them.
                    if name == "prio-operator-keys" and rule["resources"] == ["secrets"]:
                        assert rule["verbs"] == ["create"], rule
                        continue
                    found = refused.intersection(rule["resources"])
                    assert not found, f"{path.name}: {kind} {name}: {found}"


@check
def same_rules():
    """an operator has the same rights by the party's Role as by the cluster's ClusterRole"""
    party = render("prio-operator", "--set", "watchNamespaces={w}")
    role = of_kind(party, "Role")[("w", "prio-operator")]
    cluster = render("prio-operator-cluster", "--values", CHARTS / "prio-operator-cluster/ci/all-namespaces-values.yaml")
    everywhere = of_kind(cluster, "ClusterRole")[(None, "prio-operator-all-namespaces")]
    assert role["rules"] == [rule for rule in everywhere["rules"] if "use" not in rule["verbs"]]


@check
def restricted():
    """each Deployment's pod meets the restricted Pod Security level, and mounts nothing writable"""
    renderings = every_rendering("prio-operator")
    assert sum(len(of_kind(objects, "Deployment")) for _, objects in renderings) > len(renderings), "none with a keys controller"
    for path, deployment in ((path, item) for path, objects in renderings for item in of_kind(objects, "Deployment").values()):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0, path.name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert all(mount["readOnly"] for mount in container.get("volumeMounts", []))
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        assert container["livenessProbe"] and container["readinessProbe"] and container["resources"]["limits"]["memory"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@check
def environment():
    """values reach the operator's settings"""
    objects = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml")
    deployments = {name: item for (_, name), item in of_kind(objects, "Deployment").items()}
    (container,) = deployments["prio-operator"]["spec"]["template"]["spec"]["containers"]
    found = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["image"] == "registry.example/operator@sha256:" + "0" * 64
    assert found["PRIO_OPERATOR_NAMESPACES"] == "pha-workers,pha-second"
    assert found["PRIO_OPERATOR_WORKER_IMAGE"] == "registry.example/facilitator:1"
    assert found["PRIO_OPERATOR_WORKER_IMAGE_PULL_POLICY"] == "IfNotPresent"
    assert found["PRIO_OPERATOR_TICK_SECONDS"] == "2" and found["PRIO_OPERATOR_MAX_PODS"] == "10"
    assert found["PRIO_OPERATOR_LOG"] == "info,operator=debug" and "PRIO_OPERATOR_ALL_NAMESPACES" not in found
    # The keys controller: the same image, with an account, a lease and a mode of its own.
    pod = deployments["prio-operator-keys"]["spec"]["template"]["spec"]
    (keys,) = pod["containers"]
    assert keys["image"] == container["image"] and keys["args"] == ["keys"] and pod["serviceAccountName"] == "prio-operator-keys"
    of_keys = {entry["name"]: entry.get("value") for entry in keys["env"]}
    assert of_keys["PRIO_OPERATOR_NAMESPACES"] == "pha-workers,pha-second" and of_keys["PRIO_OPERATOR_KEYS_TICK_SECONDS"] == "30"
    assert of_keys["PRIO_OPERATOR_KEYS_LEASE_NAME"] == "prio-operator-keys" != found["PRIO_OPERATOR_LEASE_NAME"]
    # What a value can't set isn't passed, so that the operator's own default holds.
    plain = render("prio-operator", "--set", "watchAllNamespaces=true")
    ((_, deployment),) = of_kind(plain, "Deployment").items()
    found = {entry["name"]: entry.get("value") for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert found["PRIO_OPERATOR_ALL_NAMESPACES"] == "true" and "PRIO_OPERATOR_NAMESPACES" not in found
    assert "PRIO_OPERATOR_LOG" not in found and "PRIO_OPERATOR_WORKER_IMAGE_PULL_POLICY" not in found


@check
def settings_exist():
    """every variable that the chart sets is a flag of the program that gets it"""
    objects = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml")
    for name, path in {"prio-operator": "operator/src/settings.rs", "prio-operator-keys": "operator/src/keys/settings.rs"}.items():
        flags = (CHARTS.parent / path).read_text()
        deployment = of_kind(objects, "Deployment")[("release-namespace", name)]
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
            assert entry["name"] == "RUST_BACKTRACE" or f'"{entry["name"]}"' in flags, f"{name}: {entry['name']}"


@check
def workers():
    """worker pods have accounts without a token, lists of what they may use, and no network"""
    objects = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml", namespace="own")
    accounts = of_kind(objects, "ServiceAccount")
    lists, policies = of_kind(objects, "Role"), of_kind(objects, "NetworkPolicy")
    for namespace in ("pha-workers", "pha-second"):
        for name in ("intake", "aggregate"):
            assert accounts[(namespace, name)]["automountServiceAccountToken"] is False
        used = {rule["resources"][0]: rule["resourceNames"] for rule in lists[(namespace, "prio-operator-workloads")]["rules"]}
        assert used == {
            "workerimages": ["registry.example/facilitator:1", "registry.example/facilitator:0"],
            "workerserviceaccounts": ["intake", "aggregate", "intake-old"],
            "workersecrets": ["batch-signing", "packet-decryption", "packet-decryption-old"],
            "workerkeyrings": ["signing", "packets"],
        }, used
        spec = policies[(namespace, "prio-operator-workers")]["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"] and spec["ingress"] == [] and len(spec["egress"]) == 4
    plain = of_kind(render("prio-operator", namespace="own"), "NetworkPolicy")
    assert plain[("own", "prio-operator-workers")]["spec"]["egress"] == []


@check
def stores():
    """for mailboxes in buckets the operator mounts its own Secrets, and it and its workers are let out to stores alone"""
    full = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml", namespace="own")
    pod = of_kind(full, "Deployment")[("own", "prio-operator")]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    # The place that the program looks at.
    places = (CHARTS.parent / "facilitator-core/src/formats/work.rs").read_text()
    for name in ("list-aws", "list-gcs"):
        place = "/etc/prio-operator/mailboxes/secrets"
        assert secrets[mounts[f"{place}/{name}"]] == name and f'"{place}"' in places
    found = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert found["PRIO_OPERATOR_MAILBOX_ENDPOINTS"] == "https://store.example:8333,http://10.0.0.7"
    policies = of_kind(full, "NetworkPolicy")
    store = {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 8333, "protocol": "TCP"}],
             "to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "store"}}}]}
    for key in (("own", "prio-operator"), ("pha-workers", "prio-operator-workers"), ("pha-second", "prio-operator-workers")):
        egress = policies[key]["spec"]["egress"]
        assert store in egress and any(rule.get("to", [{}])[0].get("ipBlock", {}).get("cidr") == "169.254.169.254/32" for rule in egress), key
    anywhere = of_kind(render("prio-operator", "--set", "mailboxes.network.enabled=true", namespace="own"), "NetworkPolicy")
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in anywhere[("own", "prio-operator-workers")]["spec"]["egress"]


@check
def manifests():
    """the operator may change the listed ConfigMaps alone, and reach other parties' web servers where that is asked for"""
    full = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml", namespace="own")
    plain = render("prio-operator", namespace="own")
    changes = lambda role: [rule for rule in role["rules"] if "configmaps" in rule["resources"] and {"patch", "update", "delete"} & set(rule["verbs"])]  # noqa: E731
    assert changes(of_kind(plain, "Role")[("own", "prio-operator")]) == []
    (rule,) = changes(of_kind(full, "Role")[("pha-workers", "prio-operator")])
    assert (rule["resourceNames"], rule["verbs"]) == (["pha-manifests"], ["patch"])
    everywhere = ("--values", CHARTS / "prio-operator-cluster/ci/all-namespaces-values.yaml", "--set", "watchAllNamespaces.manifestConfigMaps={m}")
    (rule,) = changes(of_kind(render("prio-operator-cluster", *everywhere), "ClusterRole")[(None, "prio-operator-all-namespaces")])
    assert rule["resourceNames"] == ["m"]
    egress = lambda objects: of_kind(objects, "NetworkPolicy")[("own", "prio-operator")]["spec"]["egress"]  # noqa: E731
    https = {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}
    assert https in egress(full) and len(egress(plain)) == 2


@check
def several():
    """a PodDisruptionBudget only with several replicas, monitors only behind their flags"""
    kinds = lambda *flags: {item["kind"] for item in render("prio-operator", *flags)}  # noqa: E731
    assert not kinds() & {"PodDisruptionBudget", "ServiceMonitor", "PodMonitor"}
    full = kinds("--values", CHARTS / "prio-operator/ci/full-values.yaml")
    assert {"PodDisruptionBudget", "ServiceMonitor", "PodMonitor"} <= full


@check
def selectors():
    """policies, budget, service and monitors select what they are for"""
    objects = render("prio-operator", "--values", CHARTS / "prio-operator/ci/full-values.yaml", namespace="own")
    find = lambda kind, name="prio-operator": of_kind(objects, kind)[("own", name)]["spec"]  # noqa: E731
    template = find("Deployment")["template"]
    (metrics,) = [port for port in template["spec"]["containers"][0]["ports"] if port["name"] == "metrics"]
    labels, chosen = template["metadata"]["labels"], find("NetworkPolicy")["podSelector"]["matchLabels"]
    assert chosen.items() <= labels.items()
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        assert find(kind)["selector"]["matchLabels"].items() <= labels.items(), kind
    service = of_kind(objects, "Service")[("own", "prio-operator-metrics")]
    assert service["spec"]["selector"].items() <= labels.items()
    assert find("ServiceMonitor")["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert find("ServiceMonitor")["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert find("PodMonitor")["podMetricsEndpoints"][0]["port"] == metrics["name"]
    # The keys controller has its own of each, and neither gets what is for the other.
    of_keys = find("Deployment", "prio-operator-keys")["template"]["metadata"]["labels"]
    for kind, selector in (("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")):
        own = find(kind, "prio-operator-keys")[selector]["matchLabels"]
        assert own.items() <= of_keys.items() and not own.items() <= labels.items(), kind
        assert not find(kind)[selector]["matchLabels"].items() <= of_keys.items(), kind
    service = of_kind(objects, "Service")[("own", "prio-operator-keys-metrics")]
    assert service["spec"]["selector"].items() <= of_keys.items()
    plain = of_kind(render("prio-operator", namespace="own"), "Deployment")
    assert list(plain) == [("own", "prio-operator")], "no keys controller unless it is asked for"
    # The operator's own labels stay whatever podLabels say: policies select by them.
    taken = render("prio-operator", "--set", "podLabels.app\\.kubernetes\\.io/name=x", namespace="own")
    labels = of_kind(taken, "Deployment")[("own", "prio-operator")]["spec"]["template"]["metadata"]["labels"]
    assert chosen["app.kubernetes.io/name"] == labels["app.kubernetes.io/name"] == "prio-operator"
    # Worker pods are chosen by a label that the operator gives every one, and that a processor can't take away.
    workers = of_kind(objects, "NetworkPolicy")[("pha-workers", "prio-operator-workers")]["spec"]
    (expression,) = workers["podSelector"]["matchExpressions"]
    for path in sorted((CHARTS.parent / "operator/tests/golden").glob("job-*.json")):
        (job,) = [item for item in json.loads(path.read_text()) if item["kind"] == "Job"]
        assert expression["key"] in job["spec"]["template"]["metadata"]["labels"], path


@check
def notes():
    """the notes warn of what the values leave open, and their commands are whole"""
    said = lambda *flags: helm("install", "x", CHARTS / "prio-operator", "--dry-run=client", "--namespace", "own", *flags)  # noqa: E731
    least = said("--values", CHARTS / "prio-operator/ci/least-values.yaml")
    for warning in ("workers.secrets is empty", "only in own", "run exactly one"):
        assert warning in least, warning
    plain = said("--values", CHARTS / "prio-operator/ci/default-values.yaml")
    assert "WARNING" not in plain and "…" not in plain + least, plain


@check
def bad_values():
    """values that can't work are refused, and the message names them"""
    refused = {
        "replicas=2,leaderElection=false": "leaderElection",
        "leaderElection=false,strategy.type=RollingUpdate": "strategy",
        "leaderElection=false,strategy.rollingUpdate.maxSurge=1": "strategy",
        "replica=2": "replica",
        "watchNamespaces=pha": "watchNamespaces",
        "settings.tickSeconds=0": "tickSeconds",
        "workers.secrets={Not_A_Name}": "secrets",
        "workers.keyRings={a.dot}": "keyRings",
        "keys.replicas=2,leaderElection=false": "leaderElection",
        "mailboxes.endpoints={https://store.example/bucket}": "endpoints",
        "extraVolumes[0].name=a,extraVolumes[0].hostPath.path=/": "extraVolumes",
        "extraVolumeMounts[0].name=a,extraVolumeMounts[0].mountPath=/m,extraVolumeMounts[0].readOnly=false": "readOnly",
        "image.tag=": "tag or a digest",
    }
    for flags, name in refused.items():
        said = helm("template", "x", CHARTS / "prio-operator", "--set", flags, fails=True)
        assert name in said, f"{flags}: {said}"
    said = helm("template", "x", CHARTS / "prio-operator-cluster", "--set", "crds.enabled=yes", fails=True)
    assert "crds" in said


@check
def definitions():
    """definitions come and are kept as the values say, and are those of the raw file"""
    raw = {item["metadata"]["name"]: item["spec"] for item in load(EXAMPLES / "crds.yaml")}
    assert len(raw) == 5
    for keep in ("true", "false"):
        found = of_kind(render("prio-operator-cluster", "--set", f"crds.keep={keep}"), "CustomResourceDefinition")
        assert {name: item["spec"] for (_, name), item in found.items()} == raw
        for item in found.values():
            annotation = item["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
            assert annotation == ("keep" if keep == "true" else None)
    assert not of_kind(render("prio-operator-cluster", "--set", "crds.enabled=false"), "CustomResourceDefinition")
