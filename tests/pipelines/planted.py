"""Synthetic studies with planted orderings: one value per arm and metric, with the same small noise in every metric."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper.suites import INTERVENTIONS, MODES, OBJECTIVES, PARENTS, SOON, STEERING, SUITES
from pipelines.statistics.stories import story_of
from pipelines.studies.catalog import find_study
from pipelines.studies.story import Story

STORY = story_of(find_study("tiny"))
SHARES = (0.0, 0.05, 0.10, 0.25, 0.50, 1.0)
VIEWS = ("bf16", "master")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The final values of one arm; trajectories are straight lines between an early and a final value."""

    unchanged: float
    size: float  # scales rotation (deg), nss and norms
    low_magnitude: float
    principal: float
    rank: tuple[float, float]  # stable rank at 5 % and at the end
    locked: float  # Sim_16 at 10 % and 25 %
    accuracy: tuple[float, float]
    start: float = 10.0  # ||W0||_F
    steps: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)


TINY = {
    "sft": Planted(
        unchanged=0.006, size=13.0, low_magnitude=0.501, principal=0.499, rank=(3.2, 5.4), locked=0.60,
        accuracy=(0.08, 0.52), start=9.0, steps=200,
    ),
    "opd": Planted(
        unchanged=0.049, size=1.2, low_magnitude=0.514, principal=0.489, rank=(4.4, 4.2), locked=0.80,
        accuracy=(0.52, 0.86),
    ),
    "rlvr": Planted(
        unchanged=0.133, size=0.6, low_magnitude=0.544, principal=0.469, rank=(7.9, 3.8), locked=0.57,
        accuracy=(0.52, 0.70),
    ),
    "sft-matched": Planted(
        unchanged=0.049, size=1.2, low_magnitude=0.514, principal=0.489, rank=(4.4, 4.2), locked=0.80,
        accuracy=(0.52, 0.86),
    ),
}  # fmt: skip


def continued(arm: str) -> Planted:
    """An arm of interventions: SFT loses 12 points in its own basis, others none; the wrong basis costs 13."""
    parent = next(parent for parent in PARENTS if arm.startswith(f"{parent}-at"))
    known = {"opd": 0.86, "sft": 0.52, "sft-matched": 0.86, "rlvr": 0.70}[parent]
    confined = arm.split("-", parent.count("-") + 2)[-1] if arm.count("-") > parent.count("-") + 1 else ""
    lost = 0.12 if confined and parent == "sft" else 0.0
    lost += 0.13 if confined.startswith(("random", "start", "opd", "sft")) else 0.0
    lost += 0.10 if confined in ("own4", "own16-both") else 0.0
    return replace(TINY[parent], accuracy=(0.4, known - lost), steps=80)


# Arms of the other suites. Those of objectives each have a size of their own, and small alphas another stable rank.
VARIED = {
    arm: replace(
        TINY["opd"],
        size=1.0 + 0.1 * place,
        accuracy=(0.52, 0.9 - 0.02 * place),
        rank=(4.4, 3.0 if arm in ("opd-mix-05", "opd-mix-01") else 4.2),
    )
    for place, arm in enumerate(OBJECTIVES.arms)
}
VARIED |= {arm: continued(arm) for arm in INTERVENTIONS.arms}
VARIED |= {
    "rlvr-32x8": replace(TINY["rlvr"], unchanged=0.10, size=0.8),
    "opd-8x8": TINY["opd"],
    "opd-mix-00": TINY["rlvr"],
    "rlvr-norm": replace(TINY["rlvr"], size=1.2),
    "sft-slow": replace(TINY["opd"], unchanged=0.04, size=1.5, start=9.0),
    "opd-fast": replace(TINY["opd"], unchanged=0.01, size=11.0),
}
VARIED |= {
    arm: replace(TINY["rlvr"], rank=(7.9, 3.8 + 0.1 * place), accuracy=(0.52, 0.70 - 0.01 * place))
    for place, arm in enumerate(STEERING.arms)
}
SMOLLM = {
    "sft": Planted(
        unchanged=0.891, size=0.014, low_magnitude=0.71, principal=0.42, rank=(8.0, 10.4), locked=0.5,
        accuracy=(0.25, 0.52), steps=60, seeds=(0,),
    ),
    "opd": Planted(
        unchanged=0.916, size=0.011, low_magnitude=0.74, principal=0.41, rank=(11.0, 11.6), locked=0.6,
        accuracy=(0.25, 0.31), steps=60, seeds=(0,),
    ),
    "rlvr": Planted(
        unchanged=0.927, size=0.008, low_magnitude=0.78, principal=0.40, rank=(15.0, 13.8), locked=0.4,
        accuracy=(0.25, 0.50), steps=60, seeds=(0,),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to plant. `wobble` is the relative noise: arm and seed get (1 + wobble * sign), sign from `SIGNS`."""

    name: str
    arms: Mapping[str, Planted]
    cuts: tuple[int, ...] = (16,)
    wobble: float = 0.002


# Residuals of arm by seed; rows are not parallel, so paired differences keep a spread.
SIGNS = {"sft": (1, 0, -1), "opd": (0, 1, -1), "rlvr": (-1, 1, 0), "sft-matched": (1, -1, 0)}


def signs(arm: str) -> tuple[float, ...]:
    """An arm's residuals of seeds 0, 1, 2, with sum 0; each arm has its own, so that differences keep a spread."""
    drawn = np.random.default_rng(list(arm.encode())).uniform(-1, 1, 3)
    return SIGNS.get(arm) or tuple(drawn - drawn.mean())


MATRICES = (("q", 100), ("k", 100), ("gate", 300), ("embed", 1000))


def tables(study: Study) -> dict[str, pl.LazyFrame]:
    """Every table of runs of the study, as the lake would hand it over."""
    rows: dict[str, list[dict[str, object]]] = {name: [] for name, table in TABLES.items() if "recipe" in table.by}
    for arm, planted in study.arms.items():
        for seed in planted.seeds:
            wobble = 1 + study.wobble * signs(arm)[seed]
            for share in SHARES:
                record(rows, study, arm, planted, seed, share, wobble)
    return {name: pl.DataFrame(made, schema=TABLES[name].schema, orient="row").lazy() for name, made in rows.items()}


def record(
    rows: dict[str, list[dict[str, object]]],
    study: Study,
    arm: str,
    planted: Planted,
    seed: int,
    share: float,
    wobble: float,
) -> None:
    step = round(share * planted.steps)
    run = {"study": study.name, "recipe": f"{study.name}.{arm}", "seed": seed, "step": step}
    told = {
        "dtype": "fp32",
        "objective": arm,
        "optimizer": "AdamW(0.9, 0.95, 1e-8)",
        "learning_rate": 3e-5,
        "weight_decay": 0.0,
        "run_steps": planted.steps,
        "method": "synthetic 1",
    }
    if share in (0.0, 1.0):
        accuracy = planted.accuracy[0] if share == 0 else planted.accuracy[1] * wobble
        for temperature in (1.0, 0.0):
            rows["evaluation"].append(
                {
                    **run,
                    "temperature": temperature,
                    "accuracy": accuracy,
                    "stderr": 0.02,
                    "n": 400,
                    "problems": 100,
                    "samples": 4,
                }
            )
    if share == 1.0:
        leaked = 1e-7 if arm.endswith(MODES) else 0.3 * wobble if "-at" in arm else None
        leaked = None if arm.partition("-at")[2].isdigit() else leaked  # free
        rows["training"].append({**run, "leaked": leaked, "removed": None if leaked is None else 0.9})
    early, late = planted.rank
    rank = (early + (late - early) * max(0.0, share - 0.05) / 0.95) * wobble
    size = planted.size * max(share, 0.01) * wobble
    for role, numel in MATRICES:
        # Roles differ by a factor whose mean over q, k and gate is 1; embed is far off and must not count.
        spread = {"q": 0.9, "k": 1.1, "gate": 1.0, "embed": 50.0}[role]
        keys = {**run, "matrix": f"layers.0.{role}", "layer": None if role == "embed" else 0, "role": role}
        for view in VIEWS:
            base = {**keys, "view": view, **told}
            unchanged = 0.0 if view == "master" else min(1.0, (1 - share) + share * planted.unchanged * wobble)
            scope = "other" if role == "embed" else "projection"
            rows["update_support"].append({**base, "numel": numel, "unchanged": unchanged, "scope": scope})
            gone = "zero update" if share == 0 else None
            nss = size * spread * 1e-3
            rows["spectral_drift"].append({**base, "nss": nss, "mirsky": 10 * nss, "error": 1e-9 * nss, "reason": None})
            stable = None if gone else rank * spread
            rows["update_norm"].append(
                {
                    **base,
                    "frobenius": planted.start * size * spread * 1e-2,
                    "relative_norm": size * spread * 1e-2,
                    "stable_rank": stable,
                    "stable_rank_error": None if stable is None else 1e-6 * stable,
                    "reason": gone,
                }
            )
            # 6 is 10 % of the smaller side, which only one shape has.
            hills = {16: 2.5 * wobble, **({6: 9.0} if role == "k" else {}), 32: 3.5 * wobble}
            rows["hill"] += [{**base, "k": k, "hill": None if gone else h, "reason": gone} for k, h in hills.items()]
            if share > 0:
                rows["nulls"] += null_rows(base, planted, share, wobble, spread, list(hills))
            for k in study.cuts:
                for side in ("input", "output"):
                    angles = [size * spread * 2 * (i + 1) / (k + 1) for i in range(k)]
                    rows["rotation"].append(
                        {
                            **base,
                            "side": side,
                            "k": k,
                            "mean_deg": size * spread,
                            "max_deg": angles[-1],
                            "error_deg": 90.0 if role == "gate" and side == "output" else 1e-3 * angles[-1],
                            "angles_deg": angles,
                            "reason": None,
                        }
                    )
            if 0 < share < 1:
                for side in ("input", "output"):
                    rows["locking"].append(
                        {
                            **base,
                            "step_other": planted.steps,
                            "side": side,
                            "k": 16,
                            "similarity": min(1.0, planted.locked * wobble * (1 + 0.2 * share)),
                            "error": 1.0 if role == "q" and side == "output" else 1e-4,
                            "chance": 0.125,
                        }
                    )
            if view == "bf16" and share > 0:
                for mask, overlap, depth in (
                    ("low_magnitude", planted.low_magnitude, None),
                    ("principal", planted.principal, 8 if role == "k" else 16),  # the rank follows the shape
                ):
                    rows["localization"].append(
                        {**base, "mask": mask, "alpha": 0.5, "rank": depth, "overlap": overlap * wobble, "density": 0.9}
                    )


def null_rows(
    base: dict[str, object], planted: Planted, share: float, wobble: float, spread: float, cuts: list[int]
) -> list[dict[str, object]]:
    """Both nulls of one view at one step: the one that never turns looks less concentrated while it is small."""
    rounded = 0.4 * (1 - share)
    levels = {"shuffled": (40.0, 0.125)}
    if base["view"] == "bf16":
        levels["fixed_direction"] = (planted.rank[1] * (1 + rounded), 1 - rounded)
    return [
        {
            **base,
            "null": null,
            "final_step": planted.steps,
            "stable_rank": rank * spread * wobble,
            "hill_k": cuts,
            "hill": [(2.0 + k / 16 * rounded) * wobble for k in cuts],
            "similarity_k": 16,
            "similarity_output": 0.0,
            "similarity_input": similarity,
            "reason": None,
        }
        for null, (rank, similarity) in levels.items()
    ]


def plant_study(
    base: str = "tiny",
    *,
    wobble: float = 0.002,
    drop: tuple[str, ...] = (),
    more: tuple[str, ...] = (),
    **changes: dict,
) -> dict:
    """The tables of `base` with arms dropped or changed: `opd={"size": 20.0}`; the arm sft-matched is `matched`.

    `more` are arms of `VARIED`.
    """
    arms, cuts = (TINY, (16,)) if base == "tiny" else (SMOLLM, (16, 64))
    changed = {k: replace(v, **changes.get(k.removeprefix("sft-"), {})) for k, v in arms.items() if k not in drop}
    changed |= {arm: VARIED[arm] for arm in more}
    return tables(Study(name=base, arms=changed, cuts=cuts, wobble=wobble))


@pytest.fixture(scope="session")
def plant() -> Callable[..., dict[str, pl.LazyFrame]]:
    return plant_study


@pytest.fixture(scope="session")
def tiny() -> dict[str, pl.LazyFrame]:
    return plant_study("tiny")


@pytest.fixture(scope="session")
def smollm() -> dict[str, pl.LazyFrame]:
    return plant_study("smollm")


@pytest.fixture(scope="session")
def varied() -> dict[str, pl.LazyFrame]:
    """The tiny study with every arm of the suite objectives."""
    return plant_study("tiny", more=OBJECTIVES.arms)


@pytest.fixture(scope="session")
def every() -> dict[str, pl.LazyFrame]:
    """The tiny study with every arm of every suite, and none of smollm's continued ones."""
    return plant_study("tiny", more=[arm for suite in SUITES for arm in suite.arms if f"-at{SOON}" not in arm])


@pytest.fixture(scope="session")
def story() -> Story:
    """The paper's, as the study tiny has it."""
    return STORY
