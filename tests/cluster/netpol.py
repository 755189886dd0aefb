#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Enforces NetworkPolicies on a cluster of one node, with iptables. Runs in the node's network namespace.

Watches policies, pods and namespaces, and turns them into one set of chains, replaced as a whole:

    NETPOL      hooked first into FORWARD (to other pods) and INPUT (to the node itself, so to the API server)
    NETPOL-IN   marks packets that an ingress rule allows
    NETPOL-OUT  marks packets that an egress rule allows

What reaches or leaves an isolated pod without its mark is dropped. Traffic that the node itself begins (the kubelet's
probes) is never filtered, as Kubernetes has it. Packets on one bridge are seen with bridge-nf-call-iptables=1 only.

IPv4 only. A connection that was open before a policy came stays open.
"""
import argparse
import http.client
import ipaddress
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

ALLOWED = {"Ingress": 0x10000, "Egress": 0x20000}
CHAIN = {"Ingress": "NETPOL-IN", "Egress": "NETPOL-OUT"}
ANYWHERE = "0.0.0.0/0"


class Watch(threading.Thread):
    """A copy of all objects of one kind, kept up to date."""

    def __init__(self, connect, path, keep, changed):
        super().__init__(daemon=True)
        self.connect, self.path, self.keep, self.changed = connect, path, keep, changed
        self.objects = None  # until the first list is there

    def run(self):
        while True:
            try:
                self.follow(self.list())
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                print(f"{self.path}: {error}", flush=True)
                time.sleep(0.2)

    def request(self, **parameters):
        connection = self.connect()
        connection.request("GET", self.path + "?" + urllib.parse.urlencode(parameters))
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(f"the API server answers {response.status}")
        return response

    def list(self):
        answer = json.load(self.request())
        self.objects = {self.key(item): self.keep(item) for item in answer["items"]}
        self.changed.set()
        return answer["metadata"]["resourceVersion"]

    def follow(self, version):
        """Until the server ends the watch (it does after a while, or when the version is too old)."""
        for line in self.request(watch=1, resourceVersion=version, timeoutSeconds=600):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            item = event["object"]
            before = self.objects.get(self.key(item))
            after = None if event["type"] == "DELETED" else self.keep(item)
            if after == before:
                continue
            objects = dict(self.objects)
            objects.pop(self.key(item), None)
            if after is not None:
                objects[self.key(item)] = after
            self.objects = objects
            self.changed.set()

    @staticmethod
    def key(item):
        return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def keep_labels(namespace):
    return namespace["metadata"].get("labels", {})


def keep_spec(policy):
    return policy["spec"]


def keep_pod(pod):
    """What rules need of a pod; empty while it has no address of its own."""
    status, spec = pod.get("status", {}), pod["spec"]
    if not status.get("podIP") or spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return {}
    containers = spec.get("initContainers", []) + spec["containers"]
    ports = {
        (port["name"], port.get("protocol", "TCP")): port["containerPort"]
        for container in containers
        for port in container.get("ports", [])
        if "name" in port
    }
    return {"address": status["podIP"], "labels": pod["metadata"].get("labels", {}), "ports": ports}


def selects(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        matches = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[operator]
        if not matches:
            return False
    return True


def without(cidr, holes):
    """The networks of CIDR that lie in none of HOLES, as text."""
    networks = [ipaddress.ip_network(cidr)]
    for hole in map(ipaddress.ip_network, holes):
        rest = []
        for network in networks:
            if network.subnet_of(hole):
                continue
            rest += network.address_exclude(hole) if hole.subnet_of(network) else [network]
        networks = rest
    return [str(network) for network in sorted(networks)]


def peers(rule_peers, namespace, pods, namespaces):
    """Where traffic may come from or go to: (network, pod or None)."""
    if not rule_peers:
        return [(ANYWHERE, None)]
    found = []
    for peer in rule_peers:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            if ":" not in block["cidr"]:
                found += [(network, None) for network in without(block["cidr"], block.get("except") or [])]
            continue
        for (pod_namespace, _), pod in pods.items():
            if "namespaceSelector" in peer:
                if not selects(peer["namespaceSelector"], namespaces.get(("", pod_namespace), {})):
                    continue
            elif pod_namespace != namespace:
                continue
            if selects(peer.get("podSelector") or {}, pod["labels"]):
                found.append((pod["address"], pod))
    return found


def port_matches(rule_ports, target):
    """What iptables has to match for the ports of a rule. TARGET is the pod at the receiving end, where it is known:
    a port by name is that pod's, and matches nothing elsewhere."""
    if not rule_ports:
        return [""]
    found = []
    for port in rule_ports:
        protocol, number = port.get("protocol", "TCP"), port.get("port")
        if isinstance(number, str):
            number = target["ports"].get((number, protocol)) if target else None
            if number is None:
                continue
        match = f"-p {protocol.lower()}"
        if number is not None:
            match += f" --dport {number}" + (f":{port['endPort']}" if "endPort" in port else "")
        found.append(match)
    return found


def rules(policies, all_pods, namespaces):
    """The input of iptables-restore."""
    pods = {key: pod for key, pod in all_pods.items() if pod}
    isolated = {"Ingress": set(), "Egress": set()}
    allow = set()
    for (namespace, _), spec in policies.items():
        types = spec.get("policyTypes") or ["Ingress"] + ["Egress"] * ("egress" in spec)
        for (pod_namespace, _), pod in pods.items():
            if pod_namespace != namespace or not selects(spec.get("podSelector") or {}, pod["labels"]):
                continue
            for direction, of_rule in (("Ingress", "from"), ("Egress", "to")):
                if direction not in types:
                    continue
                isolated[direction].add(pod["address"])
                for rule in spec.get(direction.lower()) or []:
                    for network, peer in peers(rule.get(of_rule), namespace, pods, namespaces):
                        ends = (network, pod["address"]) if direction == "Ingress" else (pod["address"], network)
                        for match in port_matches(rule.get("ports"), pod if direction == "Ingress" else peer):
                            allow.add(
                                f"-A {CHAIN[direction]} -s {ends[0]} -d {ends[1]} {match}"
                                f" -j MARK --or-mark {ALLOWED[direction]:#x}"
                            )
    lines = ["*filter", ":NETPOL - [0:0]", ":NETPOL-IN - [0:0]", ":NETPOL-OUT - [0:0]"]
    lines += ["-A NETPOL -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"]
    # A pod may always talk to itself, as it does through its own Service.
    lines += [f"-A NETPOL -s {address} -d {address} -j RETURN" for address in sorted(set().union(*isolated.values()))]
    lines += ["-A NETPOL -j MARK --set-xmark 0x0/0x30000", "-A NETPOL -j NETPOL-IN", "-A NETPOL -j NETPOL-OUT"]
    for direction, end in (("Ingress", "-d"), ("Egress", "-s")):
        mark = f"{ALLOWED[direction]:#x}"
        for address in sorted(isolated[direction]):
            lines.append(f"-A NETPOL {end} {address} -m mark ! --mark {mark}/{mark} -j DROP")
    return "\n".join(lines + sorted(allow) + ["COMMIT", ""])


def iptables(*arguments):
    return subprocess.run(["iptables", "-w", *arguments], check=True, capture_output=True, text=True).stdout


def hook():
    """Keep our chain the first: kube-proxy puts its own at the front when it starts."""
    for chain in ("FORWARD", "INPUT"):
        ours = f"-A {chain} -j NETPOL"
        present = iptables("-S", chain).splitlines()[1:]
        if present[:1] == [ours]:
            continue
        iptables("-I", chain, "1", "-j", "NETPOL")
        if ours in present:
            # The old one is now the second or later: -D would take the new one.
            iptables("-D", chain, str(present.index(ours) + 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    arguments = parser.parse_args()
    server = urllib.parse.urlsplit(arguments.server)
    context = ssl.create_default_context(cafile=arguments.ca)
    context.load_cert_chain(arguments.cert, arguments.key)

    def connect():
        return http.client.HTTPSConnection(server.hostname, server.port, context=context, timeout=900)

    changed = threading.Event()
    policies = Watch(connect, "/apis/networking.k8s.io/v1/networkpolicies", keep_spec, changed)
    pods = Watch(connect, "/api/v1/pods", keep_pod, changed)
    namespaces = Watch(connect, "/api/v1/namespaces", keep_labels, changed)
    watches = (policies, pods, namespaces)
    for watch in watches:
        watch.start()

    applied = None
    while True:
        if changed.wait(timeout=2):
            time.sleep(0.02)  # several changes come together
        changed.clear()
        if any(watch.objects is None for watch in watches):
            continue
        try:
            wanted = rules(*(watch.objects for watch in watches))
            if wanted != applied:
                subprocess.run(
                    ["iptables-restore", "-w", "--noflush"], input=wanted, check=True, capture_output=True, text=True
                )
                applied = wanted
                print(f"{time.time():.2f} {wanted.count(chr(10))} lines", flush=True)
            hook()
        except (subprocess.CalledProcessError, ValueError, KeyError) as error:
            print(error, getattr(error, "stderr", ""), file=sys.stderr, flush=True)
            changed.set()
            time.sleep(0.5)


if __name__ == "__main__":
    main()
