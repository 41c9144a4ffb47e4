"""Runs made from weights that their parent no longer holds, since it was trained again under its name.

Such a run and its siblings start from different weights, so comparisons leave it out and name it.
"""

from dataclasses import dataclass

from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study


@dataclass(frozen=True)
class Orphan:
    """A run, and the parent whose present weights it was not made from."""

    recipe: str
    seed: int
    parent: str

    def __str__(self) -> str:
        return (
            f"{self.recipe} seed {self.seed} is left out: it was made from other weights than {self.parent} holds now; "
            f"move it aside and train it again: opd rm {self.recipe}/{self.seed}"
        )


def find_orphans(store: Store, study: Study) -> list[Orphan]:
    """Runs of a study whose recorded start differs from their parent's snapshot; absent parents are skipped."""
    there, runs = set(store.list("runs")), []
    for recipe in (recipe for recipe in study.every_arm() if recipe.name in there):
        for seed in study.seeds:
            trajectory = Trajectory(store, recipe.name, seed)
            if trajectory.is_registered() and (parent := _changed_parent(trajectory)):
                runs.append(Orphan(recipe.name, seed, parent))
    return runs


def _changed_parent(trajectory: Trajectory) -> str | None:
    """The parent of a run, if it now holds other weights."""
    facts = trajectory.run()
    start = facts["identity"].get("start") or {}
    if start.get("kind") not in ("final", "snapshot"):
        return None
    seed = trajectory.seed if start.get("seed") is None else start["seed"]
    parent = Trajectory(trajectory.store, start["recipe"], seed)
    if not parent.is_registered():
        return None
    end = parent.end() if start["kind"] == "final" else {"step": start["step"]}
    if end is None or end["step"] not in parent.steps():
        return None
    same = parent.digest(end["step"]) == facts["inputs"].get("start")
    return None if same else f"{start['recipe']} seed {seed}"
