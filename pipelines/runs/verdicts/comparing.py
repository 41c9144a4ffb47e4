"""Compare the runs of a study: write verdicts to the lake, and the report."""

import hashlib
import json
from typing import Any

import polars as pl

from pipelines import lake
from pipelines.runs.geometry import records
from pipelines.runs.geometry.measuring import is_measured
from pipelines.runs.provenance import provenance
from pipelines.runs.trajectories.training import complete
from pipelines.runs.verdicts.parents import find_orphans
from pipelines.statistics.stories import story_of
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study


def read_tables(store: Store, study: Study) -> dict[str, pl.LazyFrame]:
    """The lake's rows of one study: those of its runs except `find_orphans`, and its predictions."""
    rows = {
        name: lake.scan(name, store.uri).filter(pl.col("study") == study.name)
        for name, table in lake.TABLES.items()
        if "recipe" in table.by or name == "predictions"
    }
    for orphan in find_orphans(store, study):
        other = (pl.col("recipe") != orphan.recipe) | (pl.col("seed") != orphan.seed)
        rows |= {name: part.filter(other) for name, part in rows.items() if "recipe" in lake.TABLES[name].by}
    return rows


def list_unmeasured(store: Store, study: Study, suite: str) -> list[str]:
    """Runs of a suite that are not complete and measured, as `recipe seed n`."""
    return [
        f"{recipe.name} seed {seed}"
        for recipe in study.arms(suite)
        for seed in study.seeds
        if not (complete(store, recipe, seed) and is_measured(store, recipe, seed, study.measurement))
    ]


def started_suites(store: Store, study: Study) -> list[str]:
    """The suites that a comparison waits for: core, and every other suite with a run in the store."""
    return [
        suite
        for suite, arms in study.suites.items()
        if suite == "core"
        or any(Trajectory(store, recipe.name, seed).is_registered() for recipe in arms for seed in study.seeds)
    ]


def list_missing(store: Store, study: Study) -> list[str]:
    """Runs that a comparison would lack now, as `recipe seed n`."""
    return [run for suite in started_suites(store, study) for run in list_unmeasured(store, study, suite)]


def decide_claims(store: Store, study: Study) -> pl.DataFrame:
    """Decide every claim and write `lake/verdicts/study=<s>/`, with the means behind it, and `scaling`."""
    from pipelines.statistics.means import mean_rows
    from pipelines.statistics.scaling import scaling_rows
    from pipelines.statistics.verdicts import decide_all

    found, story = read_tables(store, study), story_of(study)
    rows = decide_all(study.name, found, story)
    lake.write(store, "means", mean_rows(study.name, found, story.all_arms), study=study.name)
    if story.sizes is not None:
        lake.write(store, "scaling", scaling_rows(study.name, found, story.sizes), study=study.name)
    lake.write(store, "verdicts", rows, study=study.name)
    return rows


def compare_study(store: Store, study: Study) -> None:
    """Compute everything across the runs of a study: regimes, predictions, means, sizes and verdicts."""
    from pipelines.runs.verdicts.judging import judge_study
    from pipelines.runs.verdicts.predicting import write_predictions

    judge_study(store, study.name)
    write_predictions(store, study)
    decide_claims(store, study)


def comparison_inputs(store: Store, study: Study) -> dict[str, Any]:
    """The inputs of a comparison now: every run's measurement and transfer, the claims, and the excluded runs."""
    found, there = {}, set(store.list("runs"))
    for recipe in (recipe for recipe in study.every_arm() if recipe.name in there):
        for seed in study.seeds:
            for name in ("measured", "transfer"):
                key = f"{Trajectory(store, recipe.name, seed).prefix}/{name}.json"
                if store.exists(key):
                    found[f"{recipe.name} seed {seed} {name}"] = hashlib.sha256(store.read(key)).hexdigest()
    gone = [str(orphan) for orphan in find_orphans(store, study)]
    return {"claims": [claim.text for claim in story_of(study).default_claims], "runs": found} | (
        {"orphans": gone} if gone else {}
    )


def is_compared(store: Store, study: Study) -> bool:
    """Whether the report was made from the runs as they are now."""
    key = f"reports/{study.name}/inputs.json"
    return records.parse_fields(store, key) == comparison_inputs(store, study)


def report_key(study: Study) -> str:
    return f"reports/{study.name}/index.html"


def publish_report(store: Store, study: Study) -> str:
    """Write the report; returns its key."""
    from pipelines.report.page import render_page

    facts = provenance()
    shown = {
        "commit": facts["commit"],
        "packages": ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
        "python": facts["python"],
        "machine": facts["machine"],
        "made": facts["time"],
        "settings": ", ".join(f"{name} {cuts}" for name, cuts in vars(study.measurement).items() if name != "tables"),
    }
    if gone := find_orphans(store, study):
        shown["left out"] = "; ".join(map(str, gone))
    made_from = comparison_inputs(store, study)
    text = render_page(study, read_tables(store, study), provenance=shown, store=store)
    store.write(report_key(study), text.encode())
    store.write(f"reports/{study.name}/inputs.json", json.dumps(made_from, sort_keys=True).encode())
    return report_key(study)


def describe_excluded(store: Store, study: Study) -> list[str]:
    """Excluded runs with reasons, one line each: orphans, copies of another seed, rows that end early."""
    from pipelines.statistics.exclusions import find_exclusions

    return [
        *map(str, find_orphans(store, study)),
        *map(str, find_exclusions(read_tables(store, study), story_of(study).all_arms)),
    ]


def render_headline(store: Store, study: Study) -> str:
    """The headline table as Markdown."""
    from pipelines.statistics import headline as table

    story = story_of(study)
    return table.render_markdown(table.headline_rows(study.name, read_tables(store, study), story), story)


def render_suites(store: Store, study: Study) -> dict[str, str]:
    """The tables of suites other than core as Markdown, by suite; suites without a measured arm are left out."""
    from pipelines.statistics import grids

    found, story = read_tables(store, study), story_of(study)
    rows = {suite: grids.grid_rows(study.name, suite, found, story) for suite in story.suites}
    return {
        suite.name: grids.render_markdown(suite, table, story) for suite, table in rows.items() if not table.is_empty()
    }


def render_figures(store: Store, study: Study) -> dict[str, bytes]:
    """The report's figures as PNG, by name."""
    from pipelines.report import figures
    from pipelines.report.captions import FIGURES

    found, story = read_tables(store, study), story_of(study)
    charts = [figure for figure in FIGURES if figure.key in ("stable-rank", "norm", "locking")]
    return {
        figure.key: figures.render_png(figure.draw(story, found, story.core), scale=1.0)
        for figure in charts
        if figure.is_measured(found, story.core)
    }
