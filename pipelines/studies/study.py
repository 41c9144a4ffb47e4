"""A study is a named grid of recipes x seeds with its measurement settings; a suite is a named part of one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opd_ops.geometry import TABLES
from opd_ops.recipe import Recipe
from pipelines.studies.steps import ALL, FEW, choose_steps
from pipelines.studies.story import Story

SPECTRA = ("spectral_drift", "update_spectrum", "hill")  # tables that need whole spectra: of W_t, and of W_t - W0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Which cuts the diagnostics use, which tables they fill, and for which steps.

    k, hill_k: of `opd_ops.geometry.suite.Settings`. nulls_at: steps (`steps.choose`) of the table nulls, which compares
    with the last step and so has that one too. spectra_at: steps of whole spectra, which are most of the cost: of
    spectral_drift, and of update_spectrum and hill where no locking is filled, which needs theirs anyway.
    locking_pairs: `pairs.choose_pairs`.
    """

    k: tuple[int, ...] = (16,)
    hill_k: tuple[int, ...] = (16, 32, 64)
    tables: tuple[str, ...] = TABLES
    nulls_at: str = FEW
    spectra_at: str = ALL
    locking_pairs: str = FEW

    @property
    def cuts(self) -> dict[str, Any]:
        """The settings that decide the values of a row."""
        return {"k": self.k, "hill_k": self.hill_k}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide the rows and values of a table, as JSON types."""
        cuts = {name: list(values) for name, values in self.cuts.items()}
        return cuts | {"nulls_at": self.nulls_at, "spectra_at": self.spectra_at, "locking_pairs": self.locking_pairs}

    @property
    def choices(self) -> dict[str, str]:
        """The choice of steps by option."""
        return {"--nulls-at": self.nulls_at, "--spectra-at": self.spectra_at}

    def left_out(self, steps: Sequence[int]) -> tuple[str, ...]:
        """One line for each table that does not cover all of the ascending steps."""
        by_step = self.tables_by_step(steps)
        lines = []
        for option, tables in (("--nulls-at", ("nulls",)), ("--spectra-at", SPECTRA)):
            for table in tables:
                steps_filled = [step for step in steps if table in by_step[step]]
                if table in self.tables and len(steps_filled) < len(steps):
                    shown = ", ".join(map(str, steps_filled)) or "none"
                    lines.append(
                        f"{table} at {len(steps_filled)} of {len(steps)} steps ({shown}); {option} all takes every step"
                    )
        return tuple(lines)

    def tables_by_step(self, steps: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The tables of each of the ascending steps of a trajectory."""
        at = {"nulls": {*choose_steps(steps, self.nulls_at), *steps[-1:]}}
        for table in SPECTRA[:1] if "locking" in self.tables else SPECTRA:
            at[table] = set(choose_steps(steps, self.spectra_at))
        return {step: tuple(t for t in self.tables if t not in at or step in at[t]) for step in steps}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Recipes in dependency order. `models` are trained once (seed 0), the arms once per seed.

    `helpers` are further runs of seed 0, parents of arms of some suites; they are not measured.

    `anchor` names the arm whose end the other arms start from, where there is one. `configs` are the Hugging Face
    configurations of weights that recipes name, for a plan before the weights are there.
    """

    name: str
    title: str
    models: tuple[Recipe, ...]
    suites: dict[str, tuple[Recipe, ...]]
    seeds: tuple[int, ...]
    anchor: str | None
    measurement: Measurement = field(default_factory=Measurement)
    helpers: tuple[Recipe, ...] = ()
    nightly: tuple[str, ...] = ()  # suites the nightly sweep keeps fresh
    minutes: str = ""  # what to expect of the core suite on two cores, where it can run there
    pace: float | None = None  # CPU seconds of one core per unit of a run's cost, measured
    weights: str | None = None  # models/<name> in the store that must exist, made by `make weights`
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    story: Story | str | None = None  # of its report; as package.module:NAME where making it needs what draws

    def arms(self, suite: str = "core") -> tuple[Recipe, ...]:
        if suite not in self.suites:
            raise ValueError(f"study {self.name} has no suite {suite!r}; it has: {', '.join(self.suites)}")
        return self.suites[suite]

    def every_arm(self) -> tuple[Recipe, ...]:
        return tuple(recipe for suite in self.suites.values() for recipe in suite)

    def recipes(self) -> tuple[Recipe, ...]:
        """Every recipe: models, helpers and arms."""
        return (*self.models, *self.helpers, *self.every_arm())

    def anchors(self) -> tuple[Recipe, ...]:
        """The anchor recipe, or nothing. It is trained first for every suite."""
        return tuple(recipe for recipe in self.every_arm() if recipe.arm == self.anchor)

    def select(
        self, suites: Sequence[str], recipes: Sequence[str], seeds: Sequence[int]
    ) -> tuple[list[Recipe], list[int]]:
        """Select arms and seeds; all arms of the suites if none is named. Errors: ValueError naming an unknown one."""
        names = {arm.name: arm for suite in suites for arm in self.arms(suite)}
        for name in recipes:
            if name not in names:
                raise ValueError(
                    f"suite {', '.join(suites)} of study {self.name} has no recipe {name!r}; it has: {', '.join(names)}"
                )
        for seed in seeds:
            if seed not in self.seeds:
                raise ValueError(f"study {self.name} has no seed {seed}; it has: {', '.join(map(str, self.seeds))}")
        return [names[name] for name in recipes] or list(names.values()), sorted(set(seeds)) or list(self.seeds)
