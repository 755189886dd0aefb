#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the rules that netpol.py makes. Needs nothing but Python."""
import sys
import unittest

sys.dont_write_bytecode = True
import netpol  # noqa: E402  (after the line above, which keeps the folder clean)


def pod(address, app, ports=None):
    return {"address": address, "labels": {"app": app}, "ports": ports or {}}


PODS = {
    ("t", "server"): pod("10.0.0.1", "server", {("web", "TCP"): 8080}),
    ("t", "friend"): pod("10.0.0.2", "friend"),
    ("u", "other"): pod("10.0.0.3", "friend"),
    ("t", "starting"): {},
}
# By the keys that a watch gives them.
NAMESPACES = {netpol.Watch.key({"metadata": {"name": name}}): {"team": team} for name, team in (("t", "a"), ("u", "b"))}
SERVER = {"matchLabels": {"app": "server"}}


def rules(**spec):
    text = netpol.rules({("t", "policy"): {"podSelector": SERVER, **spec}}, PODS, NAMESPACES)
    return [line for line in text.splitlines() if "MARK --or-mark" in line or "DROP" in line]


class Rules(unittest.TestCase):
    def test_nothing_is_dropped_without_a_policy(self):
        self.assertNotIn("DROP", netpol.rules({}, PODS, NAMESPACES))

    def test_default_deny(self):
        self.assertEqual(
            rules(policyTypes=["Ingress", "Egress"]),
            [
                "-A NETPOL -d 10.0.0.1 -m mark ! --mark 0x10000/0x10000 -j DROP",
                "-A NETPOL -s 10.0.0.1 -m mark ! --mark 0x20000/0x20000 -j DROP",
            ],
        )

    def test_types_follow_from_the_rules(self):
        self.assertEqual(len(rules(ingress=[])), 1)
        self.assertEqual(len(rules(egress=[])), 2)

    def test_peer_in_the_same_namespace_and_port_by_name(self):
        peer = {"podSelector": {"matchLabels": {"app": "friend"}}}
        self.assertIn(
            "-A NETPOL-IN -s 10.0.0.2 -d 10.0.0.1 -p tcp --dport 8080 -j MARK --or-mark 0x10000",
            rules(ingress=[{"from": [peer], "ports": [{"port": "web"}]}]),
        )

    def test_a_name_that_the_pod_lacks_opens_nothing(self):
        self.assertEqual(len(rules(ingress=[{"ports": [{"port": "web", "protocol": "UDP"}]}])), 1)

    def test_namespace_selector(self):
        peer = {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}}
        opened = rules(ingress=[{"from": [peer]}])[1:]
        self.assertEqual(opened, ["-A NETPOL-IN -s 10.0.0.3 -d 10.0.0.1  -j MARK --or-mark 0x10000"])

    def test_egress_by_port_name_is_the_peers(self):
        policy = {"podSelector": {}, "policyTypes": ["Egress"]}
        policy["egress"] = [{"to": [{"podSelector": SERVER}], "ports": [{"port": "web"}]}]
        text = netpol.rules({("t", "p"): policy}, PODS, NAMESPACES)
        self.assertIn("-A NETPOL-OUT -s 10.0.0.2 -d 10.0.0.1 -p tcp --dport 8080 ", text)

    def test_rules_without_peers_or_ports_open_all(self):
        self.assertIn("-A NETPOL-IN -s 0.0.0.0/0 -d 10.0.0.1  -j MARK --or-mark 0x10000", rules(ingress=[{}]))

    def test_port_range(self):
        opened = rules(ingress=[{"ports": [{"port": 80, "endPort": 90, "protocol": "UDP"}]}])
        self.assertIn("-A NETPOL-IN -s 0.0.0.0/0 -d 10.0.0.1 -p udp --dport 80:90 -j MARK --or-mark 0x10000", opened)

    def test_except_is_cut_out_of_its_block_only(self):
        self.assertEqual(
            netpol.without("10.0.0.0/29", ["10.0.0.2/32", "10.0.0.4/30"]), ["10.0.0.0/31", "10.0.0.3/32"]
        )
        self.assertEqual(netpol.without("10.0.0.0/29", []), ["10.0.0.0/29"])
        self.assertEqual(netpol.without("10.0.0.0/29", ["10.0.0.0/8"]), [])
        block = {"ipBlock": {"cidr": "10.0.0.2/31", "except": ["10.0.0.2/32"]}}
        peer = {"podSelector": {"matchLabels": {"app": "friend"}}}
        sources = {line.split()[3] for line in rules(ingress=[{"from": [block, peer]}])[1:]}
        self.assertEqual(sources, {"10.0.0.3/32", "10.0.0.2"})


if __name__ == "__main__":
    unittest.main()
