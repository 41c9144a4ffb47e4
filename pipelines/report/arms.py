"""The arms a study compares, in the order and colours used everywhere: Okabe-Ito, its orange darkened to show on white.

`ARMS` are those of the suite core: the headline and the figures are about them. `suites.py` has those of the others.
"""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from pipelines.report.suites import SUITES


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm. Colour never carries the meaning alone: `dash` and `shape` repeat it."""

    key: str  # the part of the recipe after "<study>."
    label: str  # name in tables and legends
    color: str  # sRGB hex
    dash: tuple[int, ...]  # stroke pattern in px; (1, 0) is solid
    shape: str  # Vega point shape
    meaning: str  # one line for the reader


ARMS = (
    Arm(
        key="sft",
        label="SFT",
        color="#c88500",
        dash=(1, 0),
        shape="square",
        meaning="supervised fine-tuning: cross-entropy on fixed answers",
    ),
    Arm(
        key="opd",
        label="OPD",
        color="#0072B2",
        dash=(1, 0),
        shape="circle",
        meaning="on-policy distillation: the teacher scores the student's own rollouts",
    ),
    Arm(
        key="rlvr",
        label="RLVR",
        color="#009E73",
        dash=(2, 2),
        shape="triangle-up",
        meaning="reinforcement learning from verifiable rewards",
    ),
    Arm(
        key="sft-matched",
        label="sft-matched",
        color="#CC79A7",
        dash=(7, 3),
        shape="diamond",
        meaning="matched control: offline cross-entropy with OPD's start, learning rate, steps and batch",
    ),
)
BY_KEY = {arm.key: arm for arm in ARMS}


CORE = tuple(BY_KEY)
EVERY = (*CORE, *(key for suite in SUITES for key in suite.arms))


def label(key: str) -> str:
    """An arm's name in tables and sentences; outside core its key."""
    return BY_KEY[key].label if key in BY_KEY else key


def tagged(frame: pl.LazyFrame, keys: Collection[str] = CORE) -> pl.LazyFrame:
    """`frame` with a column `arm`, the recipe without its study; rows of recipes outside `keys` are dropped."""
    arm = pl.col("recipe").str.replace(r"^[^.]*\.", "")
    return frame.with_columns(arm=arm).filter(pl.col("arm").is_in(list(keys)))
