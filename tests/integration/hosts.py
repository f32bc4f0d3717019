"""Hosts on one machine: network namespaces joined by a bridge, so that a cable can be pulled and a line made slow."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NETWORK = "10.213.77"
CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/var/run/netns")


def why_no_hosts() -> str | None:
    """Say why this machine cannot lay such a network, or None when it can."""
    if shutil.which("ip") is None:
        return "no ip on PATH (Debian: apt install iproute2)"
    name = f"granule-{secrets.token_hex(3)}"
    for command in (["netns", "add", name], ["-n", name, "link", "add", "a0", "type", "veth", "peer", "name", "a1"]):
        done = subprocess.run(["ip", *command], capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            return f"network namespaces are not allowed here: {done.stderr.strip()}"
    ip("netns", "del", name)
    return None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """One namespace: an address of its own, processes, and a thread in which the test can speak as this host."""

    def __init__(self, network: Network, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self._network = network
        self.folder = folder
        self._namespace = f"{network.prefix}-{name}"
        self._port = f"p{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", self._namespace)
        ip("-n", network.switch, "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        ip("-n", network.switch, "link", "set", self._port, "master", "br0", "up")
        ip("-n", self._namespace, "link", "set", "lo", "up")
        ip("-n", self._namespace, "link", "set", "eth0", "up")
        ip("-n", self._namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a process on this host, its output in a file."""
        log = self.folder / f"{self.name}-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, *command],
                env=dict(environ),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def call(self, question: Callable[[], T]) -> T:
        """Ask something from this host: every connection that is made meanwhile is its own."""
        return self._thread.submit(question).result(timeout=120)

    def cut(self) -> None:
        """Pull the cable: whatever is sent from now on is lost without a word."""
        ip("-n", self._network.switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put it back."""
        ip("-n", self._network.switch, "link", "set", self._port, "up")

    def slow_down(self, rate: str) -> None:
        """Let this host send no more than `rate` (tc's word, such as 2mbit)."""
        limits = ["rate", rate, "burst", "32kbit", "latency", "400ms"]
        command = ["ip", "netns", "exec", self._namespace, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *limits]
        subprocess.run(command, check=True, capture_output=True)

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait(timeout=30)
        self._thread.shutdown()
        subprocess.run(["ip", "netns", "del", self._namespace], capture_output=True)

    def _enter(self) -> None:
        # Only this thread changes its network; Python has a call for it from 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMESPACES / self._namespace).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


class Network:
    """A switch, and the hosts that hang on it."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"granule-{secrets.token_hex(3)}"
        self.switch = f"{self.prefix}-switch"
        self.hosts: dict[str, Host] = {}
        self._folder = folder
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")

    def host(self, name: str) -> Host:
        """Hang one more host on it."""
        self.hosts[name] = Host(self, name, len(self.hosts) + 2, self._folder)
        return self.hosts[name]

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        ip("netns", "del", self.switch)
