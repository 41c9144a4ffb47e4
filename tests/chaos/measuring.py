"""Several `opd measure` of one name at once, each of another snapshot: all of them end in all tables.

two, three   as many calls, a snapshot each
watch        one that watches a trajectory of two snapshots, beside a person who measures a third

After each race the tables, the record and what `opd verify` finds are those of one call with all snapshots.
"""

import contextlib
import io
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.store.objects import Store
from pipelines.studies.study import Measurement

if TYPE_CHECKING:
    from tests.chaos.races import Row, Writers

KINDS = ("two", "three", "watch")
STEPS = {"two": (10, 20), "three": (10, 20, 30), "watch": (10, 20, 30)}
WATCHED = 20  # the last step of the trajectory that is watched
Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
CUTS = Measurement()  # what `opd measure` asks for


def race(writers: "Writers", store: Store, kind: str, races: int) -> "Row":
    """Race `races` times in `store`. mixed: races after which tables and record are not those of one call."""
    from tests.chaos.races import Row

    began, place = time.monotonic(), f"{kind}-{uuid.uuid4().hex[:8]}"
    root = f"{store.uri}/{place}"
    for step in (0, *STEPS[kind]):
        name = f"run/step-{step}" if step <= WATCHED else f"other/step-{step}"
        for file, data in checkpoint(step).items():
            store.write(f"{place}/{name}/{file}", data)
    outcomes = writers.together(store, _measure, kind, root, races)
    whole = _whole(Store(f"memory://{uuid.uuid4().hex}"), kind, root)
    right = [all(said == "measured" for said in outcome) for outcome in outcomes]
    mixed = [_tables(store, f"{place}-{number}") != whole for number in range(races)]
    return Row(store.uri.partition("://")[0], kind, races, sum(right), sum(mixed), time.monotonic() - began)


def checkpoint(step: int) -> dict[str, bytes]:
    import torch

    from pipelines.store.tensors import serialise

    drawn = [torch.randn(24, 20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2 + step)]
    tensors = {Q: drawn[0] + 0.01 * step * drawn[1], NORM: torch.ones(20) + 0.01 * step}
    return {"model.safetensors": serialise(tensors), "config.json": b'{"tie_word_embeddings": true}'}


def _ref(root: str, step: int) -> str:
    return f"{root}/run/step-{step}" if step <= WATCHED else f"{root}/other/step-{step}"


def _measure(start: Callable[[], object], store: Store, kind: str, root: str, races: int, writer: int) -> list[str]:
    """What one writer said of each race: `measured`, or the error."""
    from pipelines import cli

    place, mine = root.rpartition("/")[2], STEPS[kind][2 if kind == "watch" and writer else writer]
    given = ["--snapshot", f"{mine}={_ref(root, mine)}"]
    if kind == "watch" and not writer:
        given = ["--trajectory", f"{root}/run", "--watch", "--until", str(WATCHED), "--interval", "0.05"]
    said, _ = [], cli.main  # imported before the first race
    for number in range(races):
        start()
        said.append(_call(store, root, f"{place}-{number}", mine, given, kind))
    return said


def _call(store: Store, root: str, name: str, mine: int, given: list[str], kind: str) -> str:
    from pipelines import cli
    from pipelines.runs.external.imports import measure_import, plan_import
    from pipelines.runs.verdicts import reporting

    if kind != "watch":
        try:
            measure_import(plan_import(store, _ref(root, 0), [(mine, _ref(root, mine))], CUTS, name), serial=True)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "measured"
    reporting.publish_import = lambda store, recipe: reporting.report_key(
        recipe
    )  # in this process, which draws no page
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(
            ["measure", "--base", _ref(root, 0), *given, "--name", name, "--out", store.uri, "--workers", "0"]
        )
    return "measured" if code == 0 else err.getvalue()


def _whole(store: Store, kind: str, root: str) -> dict[str, Any]:
    """What one call with all snapshots leaves."""
    from pipelines.runs.external.imports import measure_import, plan_import

    measure_import(
        plan_import(store, _ref(root, 0), [(s, _ref(root, s)) for s in STEPS[kind]], CUTS, "whole"), serial=True
    )
    return _tables(store, "whole")


def _tables(store: Store, name: str) -> dict[str, Any]:
    """The rows of all tables of an import, the steps of its record, and what verifying it finds."""
    from pipelines import lake
    from pipelines.maintenance.audit import audit
    from pipelines.runs.geometry import records
    from pipelines.studies.study import TABLES

    recipe = f"external.{name}"
    record = records.read(store, recipe) or {"snapshots": {}, "tables": {}}
    written = {table: lake.read_partition(store, table, recipe=recipe, seed=0) for table in TABLES}
    return {
        "rows": {t: None if rows is None else rows.drop("recipe").rows() for t, rows in written.items()},
        "snapshots": record["snapshots"],
        "steps": {table: made["steps"] for table, made in record["tables"].items()},
        "findings": audit(store, runs=[(recipe, 0)]).findings,
    }
