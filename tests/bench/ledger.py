"""The rows in the lake: table `bench`, one partition a commit, the latest run of each figure on each machine."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from pipelines import lake
from pipelines.runs.provenance import commit
from pipelines.store.objects import Store
from tests.bench.row import Row

CPUINFO = Path("/proc/cpuinfo")


def describe_run() -> dict[str, str]:
    """Commit, machine with its cores and the bench's threads, torch and time: columns of every row."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    threads = torch.get_num_threads()
    return {
        "commit": commit(),
        "machine": f"{cpu}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}",
        "torch": torch.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_rows(store: Store, rows: Sequence[Row], run: dict[str, str]) -> str:
    """Write rows of whole figures, replacing those of the same figures, machine and commit; returns the key."""
    new = [{**vars(each), **run} for each in rows]
    stored = lake.read_partition(store, "bench", commit=run["commit"])
    measured = {(each["figure"], each["machine"]) for each in new}
    old = [] if stored is None else [it for it in stored.to_dicts() if (it["figure"], it["machine"]) not in measured]
    return lake.write(
        store, "bench", sorted(old + new, key=lambda each: (each["figure"], each["machine"])), commit=run["commit"]
    )
