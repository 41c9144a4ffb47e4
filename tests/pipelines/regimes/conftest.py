"""Planted trajectories whose every diagnostic is a straight line over the logarithm of the norm.

A run has a kind (0 SFT, 1 OPD, 2 RLVR, anything between) and an offset of its seed. One kind is five spreads of the
offsets -1, 0, 1, in every diagnostic, so that all distances between planted runs are known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.regimes.judging import Comparison
from pipelines.runs.verdicts import judging

UNIT = 1e-3  # the norm where the lines cross their levels
NOISE = 0.02  # of one offset
KINDS = {"sft": 0.0, "opd": 1.0, "rlvr": 2.0}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One run: its update grows by `rate` every step."""

    recipe: str
    seed: int = 0
    kind: float
    offset: float = 0.0
    rate: float = 1e-4
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    noise_rank: float = 32.0  # stable rank of noise of its matrices' shape
    objective: str | None = None
    views: tuple[str, ...] = ("bf16", "master")
    turn: float = 0.0  # what is added to the kind in bf16


def references(study: str = "tiny", seeds: int = 3, noise: float = 1.0) -> list[Planted]:
    """Arms of different pace: at step 64 sft is four times, and opd twice, as far as rlvr."""
    return [
        Planted(
            recipe=f"{study}.{arm}",
            seed=seed,
            kind=kind,
            offset=noise * (seed - 1),
            rate={"sft": 4e-4, "opd": 2e-4, "rlvr": 1e-4}[arm],
            objective=arm,
        )
        for arm, kind in KINDS.items()
        for seed in range(seeds)
    ]


def tables(runs: Sequence[Planted]) -> dict[str, pl.LazyFrame]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in judging.READ}
    for run in runs:
        for view in run.views:
            kind = run.kind + (run.turn if view == "bf16" else 0.0)
            for step in run.steps:
                _record(rows, run, view, step, 5 * NOISE * kind + NOISE * run.offset)
    return {name: pl.DataFrame(made, schema=TABLES[name].schema, orient="row").lazy() for name, made in rows.items()}


def _record(rows: dict[str, list[dict[str, Any]]], run: Planted, view: str, step: int, level: float) -> None:
    norm = run.rate * step
    growth = math.log(norm / UNIT)
    for role, factor in (("q", 0.9), ("k", 1.1)):
        base = {
            "study": run.recipe.partition(".")[0],
            "recipe": run.recipe,
            "seed": run.seed,
            "step": step,
            "matrix": f"layers.0.{role}",
            "role": role,
            "view": view,
            "objective": run.objective,
        }

        def add(table: str, base: dict[str, Any] = base, **cells: Any) -> None:
            rows[table].append(base | cells)

        size = math.exp(level)
        add(
            "update_norm",
            relative_norm=norm * factor,
            iid_stable_rank=run.noise_rank,
            stable_rank=0.1 * run.noise_rank * size * math.exp(-0.1 * growth) * factor,
            stable_rank_error=1e-9,
        )
        add("update_support", numel=1000, unchanged=0.5 + level - 0.05 * growth, scope="projection")
        for side in ("input", "output"):
            mean = 100 * norm * size * factor if side == "input" else 77.0
            add("rotation", side=side, k=16, mean_deg=mean, error_deg=1e-9)
        add("spectral_drift", nss=0.1 * norm * size * factor, error=1e-12)
        add("update_spectrum", effective_rank=20 * size * factor, effective_rank_error=1e-9)
        add("nulls", null="shuffled", effective_rank=40.0)
        add("nulls", null="fixed_direction", effective_rank=3.0)
        add("hill", k=16, hill=1.5 * size * factor, error=1e-9)
        add("hill", k=32, hill=99.0, error=1e-9)
        for mask, sign in (("low_magnitude", 1), ("principal", -1)):
            add("localization", mask=mask, alpha=0.5, overlap=0.5 + sign * level)
        for other in run.steps:
            if other > step:
                add("locking", step_other=other, side="input", k=16, similarity=0.4 + level, error=1e-9)


@pytest.fixture(scope="session")
def planted() -> type[Planted]:
    return Planted


@pytest.fixture(scope="session")
def plant() -> Callable[..., dict[str, pl.LazyFrame]]:
    """plant(runs): tables of these runs."""
    return tables


@pytest.fixture(scope="session")
def beside() -> Callable[..., list[Planted]]:
    """beside(study=, seeds=, noise=): the planted references of a study."""
    return references


@pytest.fixture(scope="session")
def judged() -> Callable[..., list[Comparison]]:
    """judged(run, others=references(), step=None, study="tiny"): a run's comparisons with these references."""
    from pipelines.regimes.profile import read_profiles

    def judge(
        run: Planted, others: Sequence[Planted] | None = None, step: int | None = None, study: str = "tiny"
    ) -> list[Comparison]:
        runs = {(one.recipe, one.seed): one for one in (*(references() if others is None else others), run)}
        found = read_profiles(tables(list(runs.values())), runs)
        return judging.judge_regime(found, run.recipe, run.seed, study, step)

    return judge
