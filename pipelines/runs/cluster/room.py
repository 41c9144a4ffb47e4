"""How much memory there is for work: of Ray's nodes, of which tasks and actors reserve what they will need, or here."""

import resource
from pathlib import Path

# Bytes of addresses that a process reserves to import Arrow and Polars, and to draw a figure; Ray takes less than that.
LIBRARIES, DRAWING = 1.5e9, 80e9
SHARE = 0.9  # of the memory that is free when a private Ray starts, which its work may reserve
CGROUP = Path("/sys/fs/cgroup")


def nodes() -> list[dict[str, float]]:
    """Resources, free or not, of every node that is alive; `memory` in bytes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def sizes() -> list[float]:
    """Bytes of memory that each node's work may reserve in all; of a cluster that has yet to grow its workers, none."""
    return [float(node["memory"]) for node in nodes() if node.get("CPU", 0) and "memory" in node]


def largest() -> float:
    """Bytes of the largest of them; infinite where there is none yet."""
    return max(sizes(), default=float("inf"))


def here(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> float:
    """Bytes free on this machine or in its container; infinite where the system does not tell."""
    old = cgroup / "memory"
    return min(
        _free(meminfo),
        _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        _left(old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat"),
    )


def require_addresses(least: float = DRAWING) -> None:
    """Errors: ValueError where a process may not reserve `least` bytes, since the libraries that do would end it."""
    if (limit := limits().get("ulimit -v", least)) < least:
        raise ValueError(
            f"the address space of a process is limited to {gb(limit)} here (ulimit -v), and this command reserves "
            f"{gb(least)}, of which it uses little; lift the limit (ulimit -v unlimited), and give the command again"
        )


def limits() -> dict[str, float]:
    """Bytes that this process may have at most, by the words that lift the limit; nothing where there is none."""
    kinds = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}
    soft = {words: resource.getrlimit(kind)[0] for words, kind in kinds.items()}
    return {words: float(limit) for words, limit in soft.items() if limit != resource.RLIM_INFINITY}


def gb(count: float) -> str:
    """`14.2 GB`; below a tenth of one in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def _free(meminfo: Path) -> float:
    return float(_named(meminfo).get("MemAvailable:", "inf")) * 1024.0


def _left(limit: Path, used: Path, stat: Path) -> float:
    """What a container may still take; page cache that can go counts as free."""
    try:
        most, now = limit.read_text().strip(), int(used.read_text())
    except OSError:
        return float("inf")
    told = _named(stat)
    cached = int(told.get("total_inactive_file", told.get("inactive_file", "0")))
    return float("inf") if most == "max" else float(max(0, int(most) - now + cached))


def _named(file: Path) -> dict[str, str]:
    """The first number of each line by its first word; nothing where the file is not there."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    return {parts[0]: parts[1] for line in lines if len(parts := line.split()) > 1}
