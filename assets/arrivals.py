"""Report objects that the store holds and this Dagster has not seen, as materialisations without a run.

`opd ui` does this first. Files decide what is complete; Dagster's database is a view that can be lost or differ from
the one that a launch wrote to. Each partition is reported once. A partition that Dagster has recorded costs one look at
the store.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from assets import exhibits, failures, geometry, metadata, models, offers, trajectories
from assets.partitions import STUDIES, anchor_key, is_taught, run_key
from opd_ops.recipe import Recipe
from pipelines.runs.geometry import records
from pipelines.runs.geometry.measuring import TABLES, is_measured
from pipelines.runs.trajectories.training import complete
from pipelines.runs.verdicts import comparing
from pipelines.runs.verdicts.transfer import is_transferred
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study

COMPARED = ("regime", "predictions", "verdicts")
TRAINED = {"training": trajectories.training_facts, "evaluation": trajectories.evaluation_facts}


@dataclass
class Arrivals:
    """One pass over a store for one Dagster. It counts reports by kind; `said` is the summary line."""

    instance: dg.DagsterInstance
    store: Store
    count: int = 0  # of partitions
    runs: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)  # a line for each that cannot be read
    known: dict[str, set[str]] = field(default_factory=dict)  # partitions that Dagster has a record of, by asset

    @cached_property
    def names(self) -> set[str]:
        """The recipes with a folder in the store."""
        return set(self.store.list("runs"))

    def report(self) -> None:
        """Offer the partitions that the store holds, then report them, parents first."""
        offers.offer(self.instance, offers.of_store(self.store))
        for study in STUDIES.values():
            self._guard(f"models of {study.name}", self._report_models, study)
        for study in STUDIES.values():
            for recipe, seed in self._runs(study):
                self._guard(f"{recipe.name} seed {seed}", self._report_run, study, recipe, seed)
        for study in STUDIES.values():
            self._guard(f"comparison of {study.name}", self._report_comparison, study)
        for name in sorted(self.names):
            if name.startswith(offers.EXTERNAL):
                self._guard(name, self._report_import, name)

    @property
    def said(self) -> str:
        """`12 runs found in the store, shown`; empty where nothing was reported."""
        counts = ((self.runs, "run"), (self.studies, "comparison"), (self.imports, "import"))
        parts = [f"{len(keys)} {word}{'s' * (len(keys) != 1)}" for keys, word in counts if keys]
        return f"{' and '.join(parts)} found in the store, shown" if parts else ""

    def _guard(self, name: str, step: Callable[..., None], *arguments: Any) -> None:
        """One step of a report. Damaged objects, and runs of a changed recipe, do not stop the others."""
        try:
            step(*arguments)
        except Exception as error:
            if (line := failures.describe_foreseen(error)) is None:
                raise
            self.problems.append(f"{name} is not shown: {line}")

    def _report_models(self, study: Study) -> None:
        """The base and the teacher of an offered study, and its anchors."""
        begun = any(recipe.name in self.names for recipe in study.every_arm())
        for arm in ("base", "teacher"):
            recipe = next((model for model in study.models if model.arm == arm), None)
            if recipe is not None:
                self._report_trained(arm, study.name, recipe, 0)
            elif begun and (arm == "base" or is_taught(study)) and self._is_new(arm, study.name):
                _, source = models.describe_given_model(study, arm)
                self._tell(arm, study.name, {"source": source} | metadata.report(study.name))
        for recipe in study.anchors():
            for seed in study.seeds:
                self._report_trained("anchor", anchor_key(study.name, seed), recipe, seed)

    def _runs(self, study: Study) -> Iterator[tuple[Recipe, int]]:
        """Runs of the grid with a folder in the store."""
        for recipes, seeds in ((study.every_arm(), study.seeds), (study.helpers, (0,))):
            yield from ((recipe, seed) for recipe in recipes if recipe.name in self.names for seed in seeds)

    def _report_trained(self, asset: str, key: str, recipe: Recipe, seed: int) -> bool:
        """Report a complete run as `asset`; returns whether it is complete."""
        if recipe.name not in self.names:
            return False
        if not self._is_new(asset, key):
            return True
        if not complete(self.store, recipe, seed):
            return False
        end = Trajectory(self.store, recipe.name, seed).end()
        assert end is not None
        self._tell(asset, key, models.run_facts(self.store, recipe, seed, end), end["digest"])
        return True

    def _report_run(self, study: Study, recipe: Recipe, seed: int) -> None:
        """A run of the grid and its tables."""
        key, before = run_key(recipe.name, seed), self.count
        if not self._report_trained("trajectory", key, recipe, seed):
            return
        for table, facts in TRAINED.items():
            self._report_table(table, key, recipe, seed, facts)
        new = [table for table in TABLES if self._is_new(table, key)]
        if new and is_measured(self.store, recipe, seed, study.measurement):
            for table in new:
                self._report_table(table, key, recipe, seed, lambda part, name=table: geometry.table_facts(name, part))
        if self._is_new("transfer", key) and is_transferred(self.store, recipe, seed):
            offers.offer(self.instance, {"transfers": [key]})
            self._report_table("transfer", key, recipe, seed, metadata.Part.facts)
        if self.count != before:
            self.runs.add(key)

    def _report_table(
        self, table: str, key: str, recipe: Recipe, seed: int, facts: Callable[[metadata.Part], dict[str, Any]]
    ) -> None:
        if self._is_new(table, key) and (part := metadata.part(self.store, table, recipe=recipe.name, seed=seed)):
            self._tell(table, key, facts(part) | metadata.report(recipe.study), part.digest)

    def _report_comparison(self, study: Study) -> None:
        """The comparison of a study, if it was made from the runs as they are now."""
        assets = (*COMPARED, "report", *(item.key for item in exhibits.list_exhibits(study)))
        new = [asset for asset in assets if self._is_new(asset, study.name)]
        if (
            not new
            or not self.store.exists(comparing.report_key(study))
            or not comparing.is_compared(self.store, study)
        ):
            return
        for asset in new:
            part = metadata.part(self.store, asset, study=study.name) if asset in COMPARED[1:] else None
            facts = part.facts() if part else {}
            self._tell(asset, study.name, facts | metadata.report(study.name), part.digest if part else None)
        self.studies.add(study.name)

    def _report_import(self, recipe: str) -> None:
        """Measured checkpoints from elsewhere, and their judgement if they are watched."""
        name = recipe.removeprefix(offers.EXTERNAL)
        if not self._is_new("external", name) and not self._is_new("monitor", name):
            return
        _, record = records.read_newest(self.store, recipe)
        if record is None:
            return
        before = self.count
        if self._is_new("external", name):
            steps = ", ".join(sorted(record["snapshots"], key=int))
            facts = {"base": record["base"]["ref"], "steps": steps} | metadata.report(recipe)
            self._tell("external", name, facts)
        part = metadata.part(self.store, "monitor", recipe=recipe, seed=0)
        if part and self._is_new("monitor", name):
            self._tell("monitor", name, part.facts() | metadata.report(recipe), part.digest)
        if self.count != before:
            self.imports.add(name)

    def _is_new(self, asset: str, key: str) -> bool:
        if asset not in self.known:
            self.known[asset] = set(self.instance.get_materialized_partitions(dg.AssetKey(asset)))
        return key not in self.known[asset]

    def _tell(self, asset: str, key: str, facts: dict[str, Any], version: str | None = None) -> None:
        """Report one partition. version: the data version that its own step would record."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset,
                partition=key,
                description="Found in the store: made by another Dagster, or by the command line.",
                metadata=facts,
                tags={"dagster/data_version": version} if version else {},
            )
        )
        self.known[asset].add(key)
        self.count += 1
