"""Correlate early locking with accuracy over the runs of a study; read from and write to the lake."""

import polars as pl

from opd_ops.recipe import FinalOf
from pipelines import lake
from pipelines.regimes.prediction.predictions import prediction_rows
from pipelines.store.objects import Store
from pipelines.studies.study import Study

READ = ("locking", "evaluation", "transfer")


def siblings(study: Study) -> list[str]:
    """The arms that start from the anchor's end; without an anchor, from the start of the first arm."""
    starts = {FinalOf(recipe=anchor.name) for anchor in study.anchors()} or {study.arms()[0].start}
    return [recipe.arm for recipe in study.every_arm() if recipe.start in starts]


def write_predictions(store: Store, study: Study) -> pl.DataFrame:
    """Correlate a study's rows in the lake, and write `lake/predictions/study=<s>/`."""
    tables = {name: lake.scan(name, store.uri).filter(pl.col("study") == study.name) for name in READ}
    rows = prediction_rows(study.name, tables, siblings(study))
    lake.write(store, "predictions", rows, study=study.name)
    return rows
