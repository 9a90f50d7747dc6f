"""A small network of its own for a test: hosts in network namespaces, on one switch or behind a router.

All of it is made by `ip` and `nft` in namespaces that the test deletes again; the network of the machine is left alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import PEERTASK, Stage

SWITCH = "switch"
PREFIX_LENGTH = 24
COMMAND_S = 20.0

_numbers = itertools.count(1)


def _why_not() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces take root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed (./scripts/install-system-packages installs it)"
    probe = f"peertask-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this machine does not allow network namespaces"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


needs_namespaces = [pytest.mark.netns, pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "-")]


class Network:
    """Hosts on one switch, each with an address, and hosts behind a router that hides them."""

    def __init__(self) -> None:
        self._prefix = f"peertask-{os.getpid()}-{next(_numbers)}"
        self._namespaces: list[str] = []
        self._ports = itertools.count(1)

    def namespace(self, host: str) -> str:
        """The name of the namespace of a host."""
        return f"{self._prefix}-{host}"

    def open(self) -> None:
        """Make the switch."""
        self._add_namespace(SWITCH)
        self._ip(SWITCH, "link", "add", "bridge", "type", "bridge")
        self._ip(SWITCH, "link", "set", "bridge", "up")

    def close(self) -> None:
        """Delete all namespaces, and with them what is in them."""
        for namespace in self._namespaces:
            _run("ip", "netns", "delete", namespace)

    def add_host(self, host: str, address: str) -> None:
        """Add a host to the switch."""
        self._add_namespace(host)
        port = f"port{next(self._ports)}"
        self._join(host, "eth0", SWITCH, port)
        self._ip(SWITCH, "link", "set", port, "master", "bridge", "up")
        self._set_address(host, "eth0", address)

    def add_hidden_host(self, host: str, address: str, router: str, inside: str, outside: str) -> None:
        """Add a host behind a router that lets it out under the router's address, and lets nobody in."""
        self.add_host(router, outside)
        self._add_namespace(host)
        self._join(host, "eth0", router, "inside")
        self._set_address(host, "eth0", address)
        self._set_address(router, "inside", inside)
        self._ip(host, "route", "add", "default", "via", inside)
        self.run_in(router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._nft(
            router,
            "table ip nat { chain out { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }",
            "table ip filter { chain in { type filter hook forward priority 0; iifname eth0 ct state new drop; }; }",
        )

    def cut(self, host: str) -> None:
        """Drop everything that reaches a host from outside."""
        self._filter(host, "iifname eth0 drop")

    def lose(self, host: str, percent: int) -> None:
        """Drop a share of what reaches a host from outside, at random."""
        self._filter(host, f"iifname eth0 numgen random mod 100 < {percent} drop")

    def heal(self, host: str) -> None:
        """Drop nothing any more."""
        self._nft(host, "flush table inet lossy")

    def reaches(self, host: str, address: str) -> bool:
        """Whether a host gets an answer of any sort from an address."""
        knock = f"timeout 0.5 bash -c 'echo > /dev/tcp/{address}/4001 && echo answered' 2>&1 || true"
        said = self.run_in(host, "sh", "-c", knock)
        return "answered" in said or "refused" in said

    def run_in(self, host: str, *command: str) -> str:
        """Run a command at a host, and return what it prints."""
        return _run("ip", "netns", "exec", self.namespace(host), *command)

    def _filter(self, host: str, rule: str) -> None:
        self._nft(host, f"table inet lossy {{ chain in {{ type filter hook input priority 0; {rule}; }}; }}")

    def _nft(self, host: str, *rules: str) -> None:
        self.run_in(host, "nft", "; ".join(rules))

    def _add_namespace(self, host: str) -> None:
        _run("ip", "netns", "add", self.namespace(host))
        self._namespaces.append(self.namespace(host))
        self._ip(host, "link", "set", "lo", "up")

    def _join(self, one: str, name: str, other: str, other_name: str) -> None:
        self._ip(one, "link", "add", name, "type", "veth", "peer", "name", other_name, "netns", self.namespace(other))

    def _set_address(self, host: str, interface: str, address: str) -> None:
        self._ip(host, "address", "add", f"{address}/{PREFIX_LENGTH}", "dev", interface)
        self._ip(host, "link", "set", interface, "up")

    def _ip(self, host: str, *arguments: str) -> None:
        _run("ip", "-n", self.namespace(host), *arguments)


@contextmanager
def open_network() -> Iterator[Network]:
    """A network for the length of the context."""
    network = Network()
    try:
        network.open()
        yield network
    finally:
        network.close()


class HostStage(Stage):
    """Processes at one host of a network."""

    def __init__(self, folder: Path, network: Network, host: str) -> None:
        # `ip` becomes the program, so that a process is known by its own id.
        super().__init__(folder, ("ip", "netns", "exec", network.namespace(host), str(PEERTASK)))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}"
    return done.stdout
