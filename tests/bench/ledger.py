"""The rows in the lake: table `bench`, one partition a commit, the latest run of each figure on each machine."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines import lake
from pipelines.runs.provenance import commit
from pipelines.store.objects import Store
from tests.bench.row import Row

CPUINFO = Path("/proc/cpuinfo")


def where() -> dict[str, str]:
    """Commit, machine with its cores and the bench's threads, torch and time: columns of every row."""
    import torch

    threads = torch.get_num_threads()
    return {
        "commit": commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}",
        "torch": torch.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The GPU if there is one, with the model name of the CPU."""
    import platform

    import torch

    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{torch.cuda.get_device_name()} with {cpu}" if torch.cuda.is_available() else cpu


def keep(store: Store, rows: Sequence[Row], facts: dict[str, str]) -> str:
    """Write rows of whole figures, replacing those of the same figures, machine and commit; returns the key."""
    new = [{**vars(each), **facts} for each in rows]
    stored = lake.written(store, "bench", commit=facts["commit"])
    measured = {(each["figure"], each["machine"]) for each in new}
    old = [] if stored is None else [it for it in stored.to_dicts() if (it["figure"], it["machine"]) not in measured]
    found = sorted(old + new, key=lambda each: (each["figure"], each["machine"]))
    return lake.write(store, "bench", found, commit=facts["commit"])
