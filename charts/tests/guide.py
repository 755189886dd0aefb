# SPDX-License-Identifier: Apache-2.0
"""The guide for people who run this: its commands work as pasted, its links and metrics exist."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile

from harness import CLUSTER, EXAMPLES, REPO, call, check, dump, kubectl, load

GUIDE = REPO / "docs" / "operations.md"
# These need a node, which the control plane of these tests lacks, or our kubectl plugin.
NEEDS_A_NODE = ("logs -l app.kubernetes.io/", "kubectl prio ")
OPERATOR, WORKERS = "us-ct-operator", "us-ct-workers"


def blocks():
    """(heading, commands) of each block of commands."""
    heading, found, inside = "", [], None
    for line in GUIDE.read_text().splitlines():
        if line == "```sh":
            inside = []
        elif line == "```" and inside is not None:
            found.append((heading, "\n".join(inside)))
            inside = None
        elif inside is not None:
            if not any(part in line for part in NEEDS_A_NODE):
                inside.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def objects():
    """A processor, a blocked batch, a window and a Peer, as they are in life."""
    (processor,) = load(EXAMPLES / "minimal-party/processor.yaml")
    labels = {"prio-operator.io/processor": "us-ct", "prio-operator.io/outcome": "Blocked"}
    common = {"apiVersion": "prio-operator.io/v1alpha1"}
    spec = {"processor": "us-ct", "aggregation": "kittens-seen"}
    batch = {
        **common, "kind": "Batch", "metadata": {"name": "us-ct-batch", "namespace": WORKERS, "labels": labels},
        "spec": {**spec, "time": "2026/11/20/00/00", "uuid": "5a3da7c8-bf33-45d0-bfc6-7ef267c821f2"},
    }
    window = {
        **common, "kind": "AggregationWindow", "metadata": {"name": "us-ct-window", "namespace": WORKERS},
        "spec": {**spec, "start": "202611200000", "end": "202611200800"},
    }
    ring = {
        **common, "kind": "KeyRing", "metadata": {"name": "us-ct-packets", "namespace": WORKERS},
        "spec": {
            "purpose": "PacketEncryption", "keyIdPrefix": "us-ct-packets", "backup": {"method": "None"},
            "certificate": {"commonName": "us-ct.test.certificates.example.org"},
        },
    }
    peer = {
        **common, "kind": "Peer", "metadata": {"name": "other-party", "namespace": WORKERS},
        "spec": {"party": "ShareProcessor", "manifestBaseUrl": "https://other.invalid", "instance": "us-ct"},
    }
    return dump([processor, batch, window, ring, peer])


@check
def commands():
    """every command of docs/operations.md works as pasted"""
    call(CLUSTER, "helm", "uninstall", "prio-operator-cluster", "--namespace", "prio-operator-system")
    kubectl("delete", "namespace", OPERATOR, WORKERS, "--ignore-not-found", "--timeout=60s")
    found = blocks()
    install = [text for heading, text in found if heading == "Install"]
    others = [f"echo {shlex.quote(heading)} >&2\n{text}" for heading, text in found[1:] if heading != "Install"]
    assert "export OPERATOR=" in found[0][1] and len(install) == 2 and len(others) > 10, found
    # Lists are looked at while they are empty, too: kubectl's --sort-by fails on some that are.
    empty = [line for _, text in found[1:] for line in text.splitlines() if "kubectl -n $WORKERS get " in line and "WINDOW=" not in line]
    empty = [line for line in empty if "datashareprocessor $PROCESSOR" not in line and "$PEER" not in line]
    made = ["kubectl wait --for=condition=Established --timeout=30s crd/datashareprocessors.prio-operator.io crd/keyrings.prio-operator.io", "kubectl apply -f $OBJECTS"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("kubectl", "helm"):
            shim = pathlib.Path(folder, name)
            shim.write_text(f'#!/bin/sh\nexec "{CLUSTER}" {name} "$@"\n')
            shim.chmod(0o755)
        pathlib.Path(folder, "objects.yaml").write_text(objects())
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "OBJECTS": f"{folder}/objects.yaml"}
        script = "\n".join(["set -eu", found[0][1], *install, *empty, *made, *others])
        done = subprocess.run(["bash", "-c", script], cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, f"{done.stdout[-500:]}{done.stderr[-1500:]}"
        tried = lambda kind, name: json.loads(kubectl("get", kind, name, "-n", WORKERS, "-o", "json"))["metadata"].get("annotations", {})  # noqa: E731
        assert "prio-operator.io/retry" in tried("batch", "us-ct-batch"), done.stdout
        assert "prio-operator.io/retry" in tried("aggregationwindow", "us-ct-window"), done.stdout
        window = json.loads(kubectl("get", "aggregationwindow", "us-ct-window", "-n", WORKERS, "-o", "json"))["spec"]
        assert "override" not in window and "aggregationwindow.prio-operator.io/us-ct-window patched" in done.stdout, done.stdout
        assert {"prio-operator.io/retry", "prio-operator.io/approve-manifest"} <= tried("peer", "other-party").keys(), done.stdout
        assert {"prio-operator.io/plan", "prio-operator.io/rotate"} <= tried("keyring", "us-ct-packets").keys(), done.stdout
        spec = json.loads(kubectl("get", "datashareprocessor", "us-ct", "-n", WORKERS, "-o", "json"))["spec"]
        assert spec["suspend"] is False and len(spec["windows"]["cutoffs"]) == 1, spec
    finally:
        call(CLUSTER, "helm", "uninstall", "prio-operator", "--namespace", OPERATOR)
        kubectl("delete", "namespace", OPERATOR, WORKERS, "--ignore-not-found", "--timeout=60s")


@check
def links():
    """links inside the documents lead somewhere"""
    def anchors(path):
        headings = [line.lstrip("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
        return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
    documents = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md")), *sorted(EXAMPLES.glob("*/README.md"))]
    for path in documents:
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", path.read_text())):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            other = (path.parent / file).resolve() if file else path
            assert other.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{path.name}: {target}"


@check
def metrics():
    """the metrics that the guide speaks of are the operator's"""
    source = (REPO / "operator/src/metrics.rs").read_text()
    named = set(re.findall(r"prio_operator_([a-z_]+)", GUIDE.read_text()))
    assert len(named) > 5, named
    for name in named:
        assert f'"{name.removesuffix("_total").removesuffix("_seconds")}"' in source, name
