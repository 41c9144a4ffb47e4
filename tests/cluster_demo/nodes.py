"""Nodes of a Ray cluster on one machine: a raylet each with resources and a loopback address of its own, on free ports.

Ray takes 127.0.0.1 to mean the machine's outer address, and would listen there; 127.0.0.2 and on it leaves alone.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import processes

UP = 120.0  # seconds until a node has joined
FIRST = 2  # the head is 127.0.0.2
MEMORY = 200 * 2**20  # bytes of the object store of a node


@dataclass
class Node:
    """One node, and the process that started it. id: Ray's own name of it, once it has joined."""

    name: str
    process: subprocess.Popen[bytes]
    resources: Mapping[str, float]
    id: str = ""

    def kill(self) -> int:
        """kill -9 to its raylet, its workers and whatever they started, as when a machine is lost; returns how many."""
        return processes.kill(processes.list_family([self.process.pid]))


@dataclass
class Ray:
    """A cluster that starts with its head. folder: a short path, since sockets lie in it."""

    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self.port, self.jobs_port = processes.free_ports(2)
        self.nodes: list[Node] = []

    @property
    def address(self) -> str:
        return f"127.0.0.{FIRST}:{self.port}"

    @property
    def jobs(self) -> str:
        return f"http://127.0.0.1:{self.jobs_port}"

    def add(self, name: str, cpus: int, resources: Mapping[str, float]) -> Node:
        """Start a node, the head first. Errors: RuntimeError with its last lines."""
        metrics, agent, runtime, node, objects = processes.free_ports(5)
        host = f"127.0.0.{FIRST + len(self.nodes)}"
        if not self.nodes:
            role = ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.jobs_port}"]
            role += [f"--temp-dir={self.folder}", "--include-dashboard=true"]
        else:
            role = [f"--address={self.address}"]
        command = [
            Path(sys.executable).parent / "ray", "start", *role, f"--node-ip-address={host}", f"--num-cpus={cpus}",
            f"--resources={json.dumps(dict(resources))}", f"--object-store-memory={MEMORY}", "--block",
            f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}",
            f"--runtime-env-agent-port={runtime}", f"--node-manager-port={node}", f"--object-manager-port={objects}",
            "--disable-usage-stats",
        ]  # fmt: skip
        log = self.folder / f"{name}.log"
        known = {one["node_id"] for one in self.alive()} if self.nodes else set()
        added = Node(name, processes.start(command, log, self.environment), resources)
        self.nodes.append(added)
        end = time.monotonic() + UP
        while not added.id:
            if added.process.poll() is not None or time.monotonic() > end:
                lines = " / ".join(log.read_text(errors="replace").splitlines()[-8:])
                raise RuntimeError(f"Ray node {name} did not come up: {lines}")
            time.sleep(0.5)
            joined = [one["node_id"] for one in self.alive() if one["node_id"] not in known]
            added.id = joined[0] if joined else ""
        return added

    def alive(self) -> list[dict[str, Any]]:
        """Nodes that the cluster counts as alive; none while its dashboard starts."""
        from ray.util.state import list_nodes

        try:
            nodes = [vars(node) for node in list_nodes(self.jobs, timeout=10)]
            return [node for node in nodes if node["state"] == "ALIVE"]
        except Exception:  # not up yet
            return []

    def name_of(self, node: str) -> str:
        return next((one.name for one in self.nodes if one.id == node), "a node that is gone")

    def stop(self) -> None:
        processes.stop([node.process for node in reversed(self.nodes)])
