# SPDX-License-Identifier: Apache-2.0
"""What the checks share: running helm and kubectl, collecting results."""

import json
import os
import pathlib
import subprocess
import time
import traceback

import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
CHARTS = REPO / "charts"
EXAMPLES = REPO / "examples"
CLUSTER = REPO / "tests" / "cluster" / "cluster"
CHECKS = []


def check(function):
    """Registers a check; its docstring is its name, its order is that of the files."""
    CHECKS.append(function)
    return function


def run_all(only=""):
    """Runs the checks; the exit code."""
    passed = failed = 0
    for function in CHECKS:
        name = function.__doc__.strip()
        if only and only not in name and only not in function.__name__:
            continue
        try:
            function()
        except Exception as error:  # noqa: BLE001 - a check may fail in any way
            failed += 1
            print(f"FAILED  {name}", flush=True)
            text = str(error) if isinstance(error, AssertionError) and str(error) else traceback.format_exc()
            print("".join(f"        {line}\n" for line in text.strip().splitlines()[-25:]), end="", flush=True)
        else:
            passed += 1
            print(f"ok      {name}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def call(*arguments, stdin=None):
    """Runs a command: (exit code, stdout, stderr)."""
    done = subprocess.run([str(a) for a in arguments], input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def helm(*arguments, fails=False):
    """helm; stdout, or stderr where it has to fail."""
    code, out, error = call(CLUSTER, "helm", *arguments)
    assert (code != 0) == fails, f"helm {' '.join(map(str, arguments))}: exit code {code}\n{out}{error}"
    return out + error if fails else out


def kubectl(*arguments, stdin=None, fails=False):
    """kubectl; stdout, or stderr where it has to fail."""
    code, out, error = call(CLUSTER, "kubectl", *arguments, stdin=stdin)
    assert (code != 0) == fails, f"kubectl {' '.join(map(str, arguments))}: exit code {code}\n{out}{error}"
    return error if fails else out


def create(*objects, dry=False, user=None, fails=False):
    """What the operator does: it creates Jobs, and may not change them."""
    arguments = ["create", "-f", "-", *(["--dry-run=server"] if dry else [])]
    return kubectl(*arguments, *as_user(user), stdin=dump(objects), fails=fails)


def apply(*objects, dry=False, user=None, fails=False):
    """Server-side apply of objects, as somebody if told so."""
    arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    return kubectl(*arguments, *as_user(user), *(["--dry-run=server"] if dry else []), stdin=dump(objects), fails=fails)


def as_user(user):
    """kubectl's flags to be somebody: a user's name, or `namespace/account`."""
    if not user:
        return []
    if "/" not in user:
        return ["--as", user]
    namespace, account = user.split("/")
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return ["--as", f"system:serviceaccount:{namespace}:{account}", *(f"--as-group={group}" for group in groups)]


def dump(objects):
    """Objects as one YAML stream."""
    return "---\n".join(json.dumps(item) + "\n" for item in objects)


def load(path):
    """The objects of a YAML file."""
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def render(chart, *flags, namespace="release-namespace", release="prio-operator"):
    """The objects that a chart renders to."""
    text = helm("template", release, CHARTS / chart, "--namespace", namespace, *flags)
    return [item for item in yaml.safe_load_all(text) if item]


def values_files(chart):
    """The values files that each chart is tested with."""
    files = sorted((CHARTS / chart / "ci").glob("*.yaml"))
    assert len(files) >= 3, f"{chart}/ci has few values files"
    return files


def eventually(attempt, seconds=30):
    """Tries until it passes: policies and roles need a moment until they bind."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def kubeconfig_given():
    """The kubeconfig, for messages."""
    return os.environ.get("PRIO_OPERATOR_KUBECONFIG", "")
