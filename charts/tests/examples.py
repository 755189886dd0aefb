# SPDX-License-Identifier: Apache-2.0
"""Each example is applied with a server-side dry run; its parts agree with each other."""

import lupa
import yaml

from harness import CHARTS, EXAMPLES, apply, check, dump, eventually, helm, kubectl, load, render

# Kinds of other projects: the API server is given stand-ins without a schema, so that it takes what is well-formed.
FOREIGN = {
    ("argoproj.io", "v1alpha1", "Application", "applications"),
    ("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories"),
    ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases"),
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations"),
}
# The fields of those kinds that our examples may use, from their references.
FIELDS = {
    "Application": {"project", "source", "sources", "destination", "syncPolicy"},
    "GitRepository": {"interval", "url", "ref"},
    "HelmRelease": {"interval", "releaseName", "targetNamespace", "chart", "install", "upgrade", "values", "dependsOn"},
    "Kustomization": {
        "dependsOn", "interval", "retryInterval", "path", "prune", "timeout", "sourceRef", "healthChecks", "healthCheckExprs",
    },
}


def stand_in(group, version, kind, plural):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def objects():
    """(file, object) of all examples."""
    for path in sorted(EXAMPLES.glob("**/*.yaml")):
        if not path.name.endswith("values.yaml"):
            for item in load(path):
                yield path, item


@check
def dry_run():
    """each example is taken by the API server (server-side dry run)"""
    definitions = [stand_in(*foreign) for foreign in FOREIGN]
    present = kubectl("get", "crd", "-o", "name").split()
    ours = [item for item in definitions if f"customresourcedefinition.apiextensions.k8s.io/{item['metadata']['name']}" not in present]
    if ours:
        apply(*ours)
        kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{item['metadata']['name']}" for item in ours))
    # A dry run looks for the namespace, so the examples' are made for it.
    names = {item["metadata"]["namespace"] for _, item in objects() if "namespace" in item["metadata"]}
    made = [name for name in sorted(names) if name not in [n.split("/")[1] for n in kubectl("get", "namespaces", "-o", "name").split()]]
    if made:
        apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in made))
    try:
        count = 0
        for path, item in objects():
            eventually(lambda item=item: apply(item, dry=True), seconds=10)
            assert item["kind"] not in FIELDS or item["spec"].keys() <= FIELDS[item["kind"]], f"{path}: {item['spec'].keys()}"
            count += 1
        assert count > 40, count
    finally:
        for name in made:
            kubectl("delete", "namespace", name, "--wait=false")
        if ours:
            kubectl("delete", "crd", *(item["metadata"]["name"] for item in ours), "--wait=false")


@check
def values():
    """the examples' values render, and list the Secrets, claims and mounts that their processors use"""
    for folder, party, file in (("minimal-party", "processor", "values"), ("local-demo", "pha", "pha-values"), ("local-demo", "facilitator", "facilitator-values"),
                                ("party-on-aws", "processor", "values"), ("party-on-gcp", "processor", "values")):
        path = EXAMPLES / folder / f"{file}.yaml"
        helm("lint", "--strict", CHARTS / "prio-operator", "--values", path)
        given = yaml.safe_load(path.read_text())
        (item,) = load(EXAMPLES / folder / f"{party}.yaml")
        spec = item["spec"]
        assert given["watchNamespaces"] == [item["metadata"]["namespace"]]
        keys = [spec["keys"]["batchSigning"], *spec["keys"]["packetDecryption"]]
        mailboxes = [*(spec["mailboxes"][name] for name in ("ingestion", "peerValidation", "ledger")), *spec["mailboxes"]["outgoing"].values()]
        keys += [mailbox["credentials"] for mailbox in mailboxes if "secretRef" in mailbox.get("credentials", {})]
        assert {key["secretRef"]["name"] for key in keys} == set(given["workers"]["secrets"])
        mounts = {f"file://{mount['mountPath']}" for mount in given.get("extraVolumeMounts", [])}
        folders = {mailbox["url"] for mailbox in mailboxes[:3] if mailbox["url"].startswith("file://")}
        assert mounts == folders
        # Buckets are out of reach of who has no network.
        assert given.get("mailboxes", {}).get("network", {}).get("enabled", False) == (not folders), path
        for stage in ("intake", "aggregate"):
            accounts = given["workers"].get("serviceAccounts", {})
            assert accounts.get(stage, {}).get("name", stage) == spec["workers"][stage]["serviceAccountName"]
        render("prio-operator", "--values", path)


@check
def releases():
    """values inside the Argo CD and Flux examples fit the chart, and mount what the processor needs listed"""
    minimal = yaml.safe_load((EXAMPLES / "minimal-party/values.yaml").read_text())
    checked = 0
    for path, item in objects():
        spec = item.get("spec", {})
        found = [source["helm"]["valuesObject"] for source in spec.get("sources", []) if "valuesObject" in source.get("helm", {})]
        found += [spec["values"]] if item["kind"] == "HelmRelease" and "values" in spec else []
        for value in found:
            file = CHARTS.parent / "target" / "example-values.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(dump([value]))
            render("prio-operator", "--values", file)
            for name in ("watchNamespaces", "extraVolumes", "extraVolumeMounts"):
                assert value[name] == minimal[name], f"{path}: {name}"
            checked += 1
    assert checked == 2, checked


@check
def flux_order():
    """by Flux, namespaces come before the operator, and its kinds before the processor; what fails is soon tried again"""
    steps = {item["metadata"]["name"]: item["spec"] for item in load(EXAMPLES / "flux/kustomizations.yaml") if item["kind"] == "Kustomization"}
    before = {name: [step["name"] for step in spec.get("dependsOn", [])] for name, spec in steps.items()}
    assert before == {"us-ct-namespaces": [], "us-ct-operator": ["us-ct-namespaces"], "us-ct": ["us-ct-operator"]}, before
    assert all(spec["retryInterval"] == "1m" for spec in steps.values())
    releases = {item["metadata"]["name"] for item in load(EXAMPLES / "flux/releases.yaml") if item["kind"] == "HelmRelease"}
    assert {found["name"] for found in steps["us-ct-operator"]["healthChecks"]} == releases


@check
def health():
    """Argo CD's health check reads our conditions, and is the one in argocd-cm.yaml"""
    text = (EXAMPLES / "argo-cd/health.lua").read_text()
    (config,) = load(EXAMPLES / "argo-cd/argocd-cm.yaml")
    for kind in ("DataShareProcessor", "KeyRing"):
        assert config["data"][f"resource.customizations.health.prio-operator.io_{kind}"] == text
    (excluded,) = yaml.safe_load(config["data"]["resource.exclusions"])
    assert excluded["kinds"] == ["Batch", "AggregationWindow"]

    def verdict(status, generation=1):
        lua = lupa.LuaRuntime()
        table = lambda value: lua.table_from(value, recursive=True)  # noqa: E731
        lua.globals().obj = table({"kind": "DataShareProcessor", "metadata": {"generation": generation}, **({"status": status} if status else {})})
        return lua.execute(text)["status"]

    def conditions(*entries):
        return {"observedGeneration": 1, "conditions": [{"type": t, "status": s, "reason": r, "message": "m"} for t, s, r in entries]}

    assert verdict(None) == "Progressing"
    assert verdict(conditions(("Ready", "Unknown", "Pending"))) == "Progressing"
    assert verdict(conditions(("Ready", "True", "AsExpected"))) == "Healthy"
    assert verdict(conditions(("Ready", "True", "AsExpected")), generation=2) == "Progressing"
    assert verdict(conditions(("Ready", "False", "ImageNotPulled"))) == "Degraded"
    assert verdict(conditions(("Ready", "False", "Suspended"))) == "Suspended"
    assert verdict(conditions(("Ready", "False", "NoKeyInUse"))) == "Progressing"
    assert verdict(conditions(("Ready", "False", "LedgerGone"), ("Stalled", "True", "LedgerGone"))) == "Degraded"
