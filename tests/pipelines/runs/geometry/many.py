"""A long trajectory of many matrices whose parts are all in the store, and what it takes to make its tables of them.

python -m tests.pipelines.runs.geometry.many MATRICES SNAPSHOTS [few|all] [bf16|fp32]
"""

import resource
import sys
import tempfile
import time
from dataclasses import replace

import torch

from opd_ops.geometry.suite import Matrix, Settings
from opd_ops.geometry.update import Subspaces
from pipelines.lake.lake import file_of
from pipelines.runs.geometry.measuring import measure_tasks
from pipelines.runs.geometry.parts import Entry, Parts
from pipelines.runs.geometry.tasks import MatrixTask, Pair, Source
from pipelines.store.objects import Store
from pipelines.studies.study import TABLES, Measurement

SHAPE, K = (64, 48), 16
OTHERS = tuple(table for table in TABLES if table != "nulls")  # which has rows of a few snapshots


def tasks(store, matrices, snapshots, choice="few", dtype=torch.bfloat16):
    """Tasks whose checkpoints are gone, and of which everything is kept but the rows of locking."""
    steps = tuple(range(10, 10 * snapshots + 1, 10))
    pairs = tuple(Pair(step, Source("base", None), Source(f"step-{step}", None)) for step in steps)
    work = [
        MatrixTask(
            store=store,
            prefix="runs/external.many/seed-0",
            name=f"model.layers.{layer}.self_attn.q_proj",
            role="q",
            shape=SHAPE,
            dtype="BF16",
            pairs=pairs,
            columns={"study": "external", "recipe": "external.many", "seed": 0}
            | {"matrix": f"model.layers.{layer}.self_attn.q_proj", "layer": layer, "role": "q"},
            measurement=Measurement(locking_pairs=choice, tables=OTHERS),
        )
        for layer in range(matrices)
    ]
    generator = torch.Generator().manual_seed(1)
    base, last = (torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(2))
    matrix = Matrix(base, settings=Settings(), projection=True)
    taken = matrix.snapshot(10, last)
    rows = {table: found for table, found in taken.rows.items() if table in OTHERS and table != "locking"}
    bases = torch.linalg.qr(torch.randn(snapshots, max(SHAPE), K, generator=generator)).Q
    some = torch.linalg.qr(torch.randn(snapshots, min(SHAPE), K, generator=generator)).Q
    for task in work:
        parts = Parts(task)
        with parts.flushing():
            for place, step in enumerate(steps):
                subspaces = {
                    view: Subspaces(bases[place], some[place], (K,), (1e-3,), (None,), found.method)
                    for view, found in taken.subspaces.items()
                }
                parts.pending.append(
                    Entry(
                        step=step,
                        before="base/w",
                        after=f"step-{step}/w",
                        tables=task.tables,
                        rows={table: [row | {"step": step} for row in found] for table, found in rows.items()},
                        made_from=task.made_from,
                        dtype=taken.dtype,
                        subspaces=subspaces,
                    )
                )
    return work


def highest():
    """Bytes that this process held at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def made(work):
    """(rows of all tables, bytes of their files) by table, made one after the other as an import does."""
    found = measure_tasks(work, serial=True)
    return {table: (len(rows), len(file_of(table, rows))) for table, rows in found.rows.items()}


def main(matrices, snapshots, choice="few", dtype="bf16"):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"file://{folder}")
        kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
        work = tasks(store, int(matrices), int(snapshots), choice, kind)
        sizes = [len(store.read(key)) for key in store.find("runs")]
        made([replace(task, pairs=task.pairs) for task in work[:1]])
        before, began = highest(), time.process_time()
        counts = made(work)
        seconds = time.process_time() - began
        print(f"{sum(sizes) / len(work) / int(snapshots):,.0f} bytes of parts a snapshot of a matrix")
        for table, (rows, size) in counts.items():
            print(f"{table:17} {rows:10,} rows {size:12,} bytes")
        print(f"{seconds:.1f} CPU s; {before / 1e6:,.0f} MB with one matrix, {highest() / 1e6:,.0f} MB with all")


if __name__ == "__main__":
    main(*sys.argv[1:])
