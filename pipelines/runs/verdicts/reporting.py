"""The page of an imported trajectory: from its record, its tables, and the reference runs that the store holds."""

from collections.abc import Mapping

import polars as pl

from pipelines import lake
from pipelines.report.regime.references import ARMS, SEEDS
from pipelines.runs.geometry import records
from pipelines.runs.provenance import commit
from pipelines.runs.verdicts import judging
from pipelines.store.objects import Store

IMPORTED = "external."


def report_key(recipe: str) -> str:
    return f"reports/{recipe}/index.html"


def references(store: Store) -> list[str]:
    """Studies of which the arms sft, opd and rlvr are measured over enough seeds to judge others by."""
    known = judging.known(store)
    studies = sorted({recipe.partition(".")[0] for recipe in known if not recipe.startswith(IMPORTED)})
    return [study for study in studies if all(len(known.get(f"{study}.{arm}", ())) >= SEEDS for arm in ARMS)]


def publish(store: Store, recipe: str) -> str:
    """Write the page of the import `recipe` (external.NAME) where it is another than is there; returns its key.

    The same record, tables and references give the same bytes. Errors: ValueError where nothing was imported so;
    Unwritable or PermissionError where the page is another, and the store takes no writes.
    """
    from pipelines.report.imported import page

    record = records.read(store, recipe)
    if record is None:
        raise ValueError(f"{store.uri} holds no import {recipe!r}; `opd measure --name` makes one")
    judged = {}
    if recipe in judging.known(store):
        for study in references(store):
            found = judging.judge(judging.read(store, [(recipe, 0)], study), recipe, 0, study)
            judged |= {study: found} if found else {}
    beside = [f"{study}.{arm}" for study in list(judged)[:1] for arm in ARMS]
    tables = {
        name: lake.scan(name, store.uri).filter(pl.col("recipe").is_in([recipe, *beside]))
        for name, table in lake.TABLES.items()
        if "recipe" in table.by
    }
    key, data = report_key(recipe), page(recipe, tables, judged, provenance=_facts(record)).encode()
    if not (store.exists(key) and store.read(key) == data):
        store.write(key, data)
    return key


def _facts(record: records.Record) -> Mapping[str, str]:
    """What the trajectory is, and who says so."""
    measured = record.get("provenance", {})
    snapshots = record["snapshots"].items()
    made = {table: (kept["engine"], kept["settings"]) for table, kept in sorted(record["tables"].items())}
    settings = {", ".join(f"{name} {value}" for name, value in sorted(chosen.items())) for _, chosen in made.values()}
    return {
        "base": f"{record['base']['ref']} ({record['base']['stamp'][:12]})",
        **{f"step {step}": f"{found['ref']} ({found['stamp'][:12]})" for step, found in snapshots},
        "tables": ", ".join(f"{table} (engine {engine})" for table, (engine, _) in made.items()),
        "settings": "; ".join(sorted(settings)),
        "measured at commit": str(measured.get("commit", "not known")),
        "page made at commit": commit(),
    }
