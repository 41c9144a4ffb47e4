"""The page of an imported trajectory: from its record, its tables, and the reference runs in the store.

    reports/external.<name>/index.html    the page
    reports/external.<name>/inputs.json   from: SHA-256 of its inputs, by name; page: its own SHA-256

A page is drawn if it is absent, does not match inputs.json, or one of its inputs has changed: the record, a table of
the import or of a reference run, the commit, a source file or a drawing package. Drawing packages (SciPy, altair,
vl-convert) are imported only then.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import lake
from pipelines.lake.lake import describe_layout
from pipelines.regimes.references import SEEDS
from pipelines.runs.geometry import records
from pipelines.runs.provenance import commit
from pipelines.store.objects import Store, Unwritable
from pipelines.studies.catalog import list_studies

IMPORTED = "external."
PACKAGES = ("altair", "vl-convert-python", "polars", "pyarrow", "numpy", "scipy")  # that decide bytes of a page


def report_key(recipe: str) -> str:
    return f"reports/{recipe}/index.html"


def inputs_key(recipe: str) -> str:
    return f"reports/{recipe}/inputs.json"


def reference_studies(store: Store) -> list[str]:
    """Studies whose reference arms are measured over enough seeds to judge other runs."""
    from pipelines.runs.verdicts import judging

    known = judging.measured_recipes(store)
    studies = {recipe.partition(".")[0] for recipe in known if not recipe.startswith(IMPORTED)}
    arms = {study: judging.labels_of(study) for study in sorted(studies)}
    return [
        study
        for study, labels in arms.items()
        if labels and all(len(known.get(f"{study}.{arm}", ())) >= SEEDS for arm in labels)
    ]


def publish_import(store: Store, recipe: str) -> str:
    """Draw and write the page of the import `recipe` (external.NAME) if its inputs have changed; returns its key.

    The same record, tables and references give the same bytes. Errors: ValueError for an unknown import; Unwritable or
    PermissionError if the page must be drawn and the store is read-only.
    """
    record = records.read(store, recipe)
    if record is None:
        raise ValueError(f"{store.uri} holds no import {recipe!r}; `opd measure --name` makes one")
    key, made_from = (
        report_key(recipe),
        page_inputs(store, recipe, record),
    )  # before the page, whose tables may be replaced
    stored = store.read(key) if store.exists(key) else None
    named = records.parse_fields(store, inputs_key(recipe))
    if stored is not None and named == {"from": made_from, "page": _sha256(stored)}:
        return key
    data = _draw_page(store, recipe, record)
    if stored != data:
        store.write(key, data)
    try:
        store.write(inputs_key(recipe), json.dumps({"from": made_from, "page": _sha256(data)}, sort_keys=True).encode())
    except (Unwritable, PermissionError):
        if stored != data:
            raise
    return key


def page_inputs(store: Store, recipe: str, record: records.Record) -> dict[str, str]:
    """SHA-256, or the version, of every input of an import's page, by name."""
    found = {f"package {name}": version(name) for name in PACKAGES}
    found |= {"commit": commit(), "sources": hash_sources()}
    found |= {"record": _sha256(json.dumps(record, sort_keys=True).encode())}
    shown = {recipe, *reference_runs()}
    return found | {key: _sha256(store.read(key)) for key in store.find("lake") if _is_drawn(key, shown)}


def hash_sources() -> str:
    """SHA-256 over the source files that can affect a page."""
    root, total = Path(__file__).resolve().parents[3], hashlib.sha256()
    files = (path for package in ("opd_ops", "pipelines") for path in (root / package).rglob("*.*"))
    for path in sorted(path for path in files if path.suffix in (".py", ".css", ".js")):
        total.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def reference_runs() -> list[str]:
    """The recipes that a page may compare an import with, measured or not."""
    from pipelines.runs.verdicts import judging

    return [f"{study}.{arm}" for study in list_studies() for arm in judging.labels_of(study)]


def _is_drawn(key: str, recipes: Collection[str]) -> bool:
    """Whether this object holds rows of one of `recipes`."""
    table = lake.TABLES.get(key.split("/")[1])
    if table is None or "recipe" not in table.by or not describe_layout(table).fullmatch(key):
        return False
    return next(part for part in key.split("/") if part.startswith("recipe=")).removeprefix("recipe=") in recipes


def _draw_page(store: Store, recipe: str, record: records.Record) -> bytes:
    """Draw the page."""
    import polars as pl

    from pipelines.report.imported import render_import
    from pipelines.runs.verdicts import judging

    judged: dict[str, Any] = {}
    if recipe in judging.measured_recipes(store):
        for study in reference_studies(store):
            found = judging.judge_regime(judging.load_profiles(store, [(recipe, 0)], study), recipe, 0, study)
            judged |= {study: found} if found else {}
    beside = [f"{study}.{arm}" for study in list(judged)[:1] for arm in judging.labels_of(study)]
    tables = {
        name: lake.scan(name, store.uri).filter(pl.col("recipe").is_in([recipe, *beside]))
        for name, table in lake.TABLES.items()
        if "recipe" in table.by
    }
    return render_import(recipe, tables, judged, provenance=_facts(record)).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _facts(record: records.Record) -> Mapping[str, str]:
    """Provenance of the trajectory."""
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
