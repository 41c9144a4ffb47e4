"""Memory for work: what Ray's nodes have, of which tasks and actors reserve what they need, and what is free here."""

import resource
from pathlib import Path

# Bytes of addresses that a process reserves to import Arrow and Polars, and to draw a figure; Ray takes less than that.
LIBRARIES, DRAWING = 1.5e9, 80e9
SHARE = 0.9  # of the memory that is free when a private Ray starts, which its work may reserve
CGROUP = Path("/sys/fs/cgroup")


def list_node_resources() -> list[dict[str, float]]:
    """Resources, free or not, of every node that is alive; `memory` in bytes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def list_node_memory() -> list[float]:
    """Bytes that the work of each node may reserve in all; empty for a cluster that has no workers yet."""
    nodes = list_node_resources()
    return [float(node["memory"]) for node in nodes if node.get("CPU", 0) and "memory" in node]


def largest_node_memory() -> float:
    """Bytes of the node with the most memory; infinite where there is no node yet."""
    return max(list_node_memory(), default=float("inf"))


def read_free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> float:
    """Bytes free on this machine or in its container; infinite where the system does not say."""
    v1 = cgroup / "memory"
    return min(
        float(_read_fields(meminfo).get("MemAvailable:", "inf")) * 1024.0,
        _read_cgroup(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        _read_cgroup(v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes", v1 / "memory.stat"),
    )


def require_address_space(least: float = DRAWING) -> None:
    """Errors: ValueError where a process may not reserve `least` bytes: libraries would abort without a message."""
    if (limit := read_limits().get("ulimit -v", least)) < least:
        raise ValueError(
            f"the address space of a process is limited to {format_gb(limit)} here (ulimit -v), and this command "
            f"reserves {format_gb(least)}, of which it uses little; lift the limit (ulimit -v unlimited), and give the "
            "command again"
        )


def read_limits() -> dict[str, float]:
    """Limits of this process's memory in bytes, by the command that lifts each; empty where there is none."""
    kinds = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}
    soft = {command: resource.getrlimit(kind)[0] for command, kind in kinds.items()}
    return {command: float(limit) for command, limit in soft.items() if limit != resource.RLIM_INFINITY}


def format_gb(count: float) -> str:
    """`14.2 GB`; in MB below a tenth of a GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def _read_cgroup(limit: Path, used: Path, stat: Path) -> float:
    """Bytes that a container may still use; page cache that can be dropped counts as free."""
    try:
        most, now = limit.read_text().strip(), int(used.read_text())
    except OSError:
        return float("inf")
    fields = _read_fields(stat)
    cached = int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
    return float("inf") if most == "max" else float(max(0, int(most) - now + cached))


def _read_fields(file: Path) -> dict[str, str]:
    """The first number of each line by the line's first word; empty where the file is not there."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    return {parts[0]: parts[1] for line in lines if len(parts := line.split()) > 1}
