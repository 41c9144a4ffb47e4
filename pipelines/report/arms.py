"""The arms a study compares, in the order and colours used everywhere (Okabe-Ito, safe for colour blindness).

`ARMS` are those of the suite core: the headline, the claims and the figures are about them. `GROUPS` are those of the
suite objectives, in its order.
"""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl


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
        color="#E69F00",
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


@dataclass(frozen=True, kw_only=True)
class Group:
    """Arms of the suite objectives that differ from OPD in the same way."""

    name: str
    arms: tuple[str, ...]  # keys, which are their labels too
    differs: str  # from OPD, in words that follow the name


GROUPS = (
    Group(
        name="Estimator",
        arms=("opd-pg",),
        differs="the policy gradient of the sampled token, which the paper trains, in place of OPD's exact "
        "full-vocabulary reverse KL.",
    ),
    Group(
        name="Token selection",
        arms=("opd-top50", "opd-random50", "opd-top25", "opd-random25"),
        differs="half or a quarter of each response's tokens, those with the largest log s(y) - log T(y) of the "
        "sampled token (top) or as many drawn at random, in place of all.",
    ),
    Group(
        name="Self-teacher",
        arms=("opd-self",),
        differs="the start itself, reading the privileged prompt, in place of a teacher that was trained for it.",
    ),
    Group(
        name="Rollout source",
        arms=("opd-teacher-rollouts", "opd-stale16"),
        differs="the teacher's responses, or those of the student of 16 steps ago, in place of the student's own.",
    ),
    Group(
        name="Mixing",
        arms=("opd-mix-75", "opd-mix-50", "opd-mix-25", "opd-mix-05", "opd-mix-01"),
        differs="alpha OPD + (1 - alpha) RLVR, alpha in percent, in place of OPD alone. Mixes share RLVR's batch of 8 "
        "prompts x 8 samples, and take OPD's term as a policy gradient meaned over each sequence: RLVR is their "
        "alpha = 0, while beside opd-pg the batch (64 x 1) and the normaliser differ too.",
    ),
)
CORE = tuple(BY_KEY)
OBJECTIVES = tuple(key for group in GROUPS for key in group.arms)
EVERY = (*CORE, *OBJECTIVES)


def tagged(frame: pl.LazyFrame, keys: Collection[str] = CORE) -> pl.LazyFrame:
    """`frame` with a column `arm`, the recipe without its study; rows of recipes outside `keys` are dropped."""
    arm = pl.col("recipe").str.replace(r"^[^.]*\.", "")
    return frame.with_columns(arm=arm).filter(pl.col("arm").is_in(list(keys)))
