"""Shared by the figures over training: the paper's three runs, and their null."""

import polars as pl

from pipelines.paper.spread import over_seeds
from pipelines.statistics.series import align_progress

RUNS = ("sft", "opd", "rlvr")


def pool_null(runs: pl.DataFrame, *, log: bool) -> pl.DataFrame:
    """The null over seeds, as its runs are: columns arm, view, progress, value and the rest."""
    return over_seeds(align_progress(runs), "view", "progress", log=log)
