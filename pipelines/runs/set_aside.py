"""Runs that were moved aside: out of the way of others of their name, until they are brought back or deleted.

    removed/<recipe>/seed-<n>/<number>/<key>       an object of the run, under the key that it had
    removed/<recipe>/seed-<n>/<number>/moved.json  exists if and only if the whole run lies there, or is being deleted

Moving run.json moves the run. A process that trains it ends at its next write (`Trajectory.require_owner`), and its
writes in the meantime are moved, too. The next move or the next start of the run finishes a move that was stopped. The
same call finishes a return that was stopped, and the next start of the run undoes it.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from opd_ops.recipe import Recipe
from pipelines.lake.schemas import TABLES
from pipelines.runs.identity import stored_as
from pipelines.store.json_object import parse_json
from pipelines.store.names import require_name
from pipelines.store.objects import Listed, Store
from pipelines.store.trajectory import Trajectory

ROOT, MARK = "removed", "moved.json"
HEAD = re.compile(r"run\.json|import(-\d{8})?\.json")  # without one of these nothing is a run
ROUNDS = 20  # looks for what a process that was training still wrote


@dataclass(frozen=True)
class Aside:
    """A run that was moved aside, the `number`-th of its name."""

    store: Store
    recipe: str
    seed: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.recipe}/{self.seed}"

    @property
    def prefix(self) -> str:
        return f"{ROOT}/{self.recipe}/seed-{self.seed}/{self.number}"

    @property
    def mark(self) -> str:
        return f"{self.prefix}/{MARK}"

    def state(self) -> Literal["whole", "stopped", "deleted in part"]:
        """Whether the move is complete; stopped: the move, or the return, was stopped."""
        try:
            return "deleted in part" if parse_json(self.store.read(self.mark)).get("deleted") else "whole"
        except FileNotFoundError:
            return "stopped"

    def location(self) -> str:
        return f"{self.store.uri}/{self.prefix}"

    def objects(self) -> dict[str, Listed]:
        """Its objects by their original keys."""
        found = self.store.list_objects(f"{self.prefix}/")
        found.pop(self.mark, None)
        return {key.removeprefix(f"{self.prefix}/"): facts for key, facts in found.items()}


def list_aside(store: Store, recipe: str | None = None, seed: int | None = None) -> list[Aside]:
    """The runs that were moved aside, all or of a recipe or run, oldest first, with stopped moves."""
    found = []
    for name in store.list(ROOT) if recipe is None else [recipe]:
        for folder in store.list(f"{ROOT}/{name}"):
            if not (match := re.fullmatch(r"seed-(\d+)", folder)) or seed not in (None, int(match[1])):
                continue
            numbers = [int(text) for text in store.list(f"{ROOT}/{name}/{folder}") if text.isdecimal()]
            found += [Aside(store, name, int(match[1]), number) for number in sorted(numbers)]
    return found


def is_registered(store: Store, recipe: str, seed: int) -> bool:
    """Whether a run, trained here or imported, exists."""
    return any(HEAD.fullmatch(name) for name in store.list(_prefix(recipe, seed)))


def run_prefixes(recipe: str, seed: int) -> list[str]:
    """The prefixes of a run's objects: its folder, its tables, and of an import its page."""
    tables = [f"lake/{name}/recipe={recipe}/seed={seed}/" for name, table in TABLES.items() if "recipe" in table.by]
    return [f"{_prefix(recipe, seed)}/", *tables, *([f"reports/{recipe}/"] if _is_import(recipe) else [])]


def list_run_objects(store: Store, recipe: str, seed: int) -> dict[str, Listed]:
    """The objects of a run with their sizes; objects of a run in training may be missing."""
    facts = {key: listed for place in run_prefixes(recipe, seed) for key, listed in store.list_objects(place).items()}
    if _is_import(recipe) and store.exists(watched := _watch_key(recipe)):
        facts[watched] = store.stat(watched)
    return facts


def run_keys(store: Store, recipe: str, seed: int) -> list[str]:
    """Keys of all objects of a run in the order of a move: the one that registers it goes first."""
    prefix = _prefix(recipe, seed)
    found = [key for place in run_prefixes(recipe, seed) for key in store.find(place)]
    if _is_import(recipe) and store.exists(watched := _watch_key(recipe)):
        found.append(watched)

    def place(key: str) -> tuple[int, str]:
        name = key.removeprefix(f"{prefix}/")
        if "/" in name:
            return 3, key
        return 0 if HEAD.fullmatch(name) else 1 if name == "end.json" else 2, key

    return sorted(found, key=place)


def require_movable(store: Store, recipe: str, seed: int) -> None:
    """Errors: ValueError if the run has neither objects nor a stopped move."""
    there = list_aside(store, recipe, seed)
    if not run_keys(store, recipe, seed) and not (there and there[-1].state() == "stopped"):
        seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
        has = f"it has seed {', '.join(seeds)}" if seeds else f"it has {', '.join(store.list('runs')) or 'none'}"
        raise ValueError(f"{store.uri} holds no run {recipe} seed {seed}; {has}")


def move_aside(store: Store, recipe: str, seed: int) -> Aside:
    """Move a run aside, with its tables, rollouts and records, or finish a stopped move.

    Errors: ValueError for an unknown run, or if it is started again meanwhile.
    """
    require_movable(store, recipe, seed)
    there = list_aside(store, recipe, seed)
    aside = stopped_move(store, recipe, seed) or Aside(
        store, recipe, seed, max((one.number for one in there), default=0) + 1
    )
    _carry(aside)
    return aside


def stopped_move(store: Store, recipe: str, seed: int) -> Aside | None:
    """The stopped move or return of a run; None without one, or if the run was started again."""
    there = list_aside(store, recipe, seed)
    if not there or there[-1].state() != "stopped":
        return None
    return there[-1] if not is_registered(store, recipe, seed) or _same_head(there[-1]) else None


def stopped_moves(store: Store) -> list[Aside]:
    """The stopped move or return of every run that has one."""
    runs = sorted({(aside.recipe, aside.seed) for aside in list_aside(store)})
    return [aside for recipe, seed in runs if (aside := stopped_move(store, recipe, seed))]


def settle(store: Store, recipe: str, seed: int) -> None:
    """Finish a stopped move of a run."""
    if is_registered(store, recipe, seed):
        return
    there = list_aside(store, recipe, seed)
    if there and there[-1].state() == "stopped":
        _carry(there[-1])


def bring_back(store: Store, recipe: str, seed: int, number: int | None = None) -> Aside:
    """Bring back the run that was moved aside last, or the `number`-th; its run.json comes last.

    Errors: ValueError if there is none, if it is being deleted, or if another run has its name now.
    """
    aside = find_aside(store, recipe, seed, number)
    state = aside.state()
    if state == "deleted in part":
        raise ValueError(f"{store.uri}/{aside.prefix} is deleted in part: opd rm {aside.name} --delete {aside.number}")
    copied = state == "stopped" and _same_head(aside)  # stopped between the copy of run.json and its deletion
    if (is_registered(store, recipe, seed) and not copied) or (state == "whole" and run_keys(store, recipe, seed)):
        raise ValueError(
            f"{store.uri} holds another run {recipe} seed {seed} by now; move it aside first: opd rm {aside.name}, and "
            f"then opd rm {aside.name} --undo {aside.number}"
        )
    store.remove(aside.mark)
    ours = set(aside.objects())
    prefix = _prefix(recipe, seed)
    heads = sorted(key for key in ours if HEAD.fullmatch(key.removeprefix(f"{prefix}/")))
    last = [key for key in (f"{prefix}/end.json", *heads) if key in ours]
    for key in (*sorted(ours - set(last)), *last):
        store.move(f"{aside.prefix}/{key}", key)
    return aside


def delete(aside: Aside) -> None:
    """Delete a run that was moved aside, for good. The mark is set first and removed last."""
    aside.store.write(aside.mark, json.dumps({"deleted": True}).encode())
    for key in aside.objects():
        aside.store.remove(f"{aside.prefix}/{key}")
    aside.store.remove(aside.prefix)


def find_aside(store: Store, recipe: str, seed: int, number: int | None = None) -> Aside:
    """The run of that name that was moved aside last, or the `number`-th. Errors: ValueError listing those that
    exist.
    """
    there = list_aside(store, recipe, seed)
    chosen = [aside for aside in there if number in (None, aside.number)]
    if not chosen:
        which = "" if number is None else f" as number {number}"
        has = ", ".join(str(aside.number) for aside in there) or "none"
        raise ValueError(f"{store.uri} holds no run {recipe} seed {seed} that was moved aside{which}; it has: {has}")
    return chosen[-1]


def replace_start(trajectory: Trajectory, recipe: Recipe) -> str | None:
    """Make way for a changed recipe if the stored run has no snapshot past step 0; returns a line that says so.

    A run that only began is deleted; a run with a resume state or rollouts is moved aside.
    """
    store, seed = trajectory.store, trajectory.seed
    if not trajectory.is_registered() or trajectory.has_progress():
        return None
    stored = trajectory.run()
    if stored["fingerprint"] == stored_as(stored, recipe)[1]:
        return None
    return make_way(store, recipe.name, seed)


def make_way(store: Store, recipe: str, seed: int) -> str:
    """Move a run without a snapshot past step 0 aside, or delete it if it only began; returns a line that says so."""
    prefix = _prefix(recipe, seed)
    states = [name for name in store.list(f"{prefix}/resume") if name != "step-00000000"]
    worked = bool(states or store.list(f"{prefix}/rollouts"))
    aside = move_aside(store, recipe, seed)
    if worked:
        return (
            f"{recipe} seed {seed}: the stored run is another one and has no snapshot past step 0: it is moved aside "
            f"(opd rm {aside.name} --undo {aside.number} brings it back), and this one begins"
        )
    delete(aside)
    return f"{recipe} seed {seed}: the stored run is another one and made no step: this one begins in its place"


def list_children(store: Store, recipe: str, seed: int) -> list[str]:
    """Runs of the store that depend on this one: it is their start, their teacher or another parent."""
    found = []
    for name in store.list("runs"):
        for folder in store.list(f"runs/{name}"):
            match = re.fullmatch(r"seed-(\d+)", folder)
            if match is None or (name, int(match[1])) == (recipe, seed):
                continue
            trajectory = Trajectory(store, name, int(match[1]))
            with suppress(ValueError):  # what cannot be read is for `opd verify`
                if trajectory.is_registered() and _names(trajectory.run()["identity"], recipe, seed, trajectory.seed):
                    found.append(f"{name}/{match[1]}")
    return found


def _names(part: object, recipe: str, seed: int, own: int) -> bool:
    """Whether a part of an identity names a run. own: the seed of the run with that identity."""
    if isinstance(part, list | tuple):
        return any(_names(item, recipe, seed, own) for item in part)
    if not isinstance(part, dict):
        return False
    if part.get("recipe") == recipe and (own if part.get("seed") is None else part["seed"]) == seed:
        return True
    if part.get("reference") == recipe and seed in (part.get("seeds") or [seed]):
        return True
    return any(_names(item, recipe, seed, own) for item in part.values())


def _carry(aside: Aside) -> None:
    """Move the rest of the run until nothing is left; then the mark. Errors: ValueError if it is started again."""
    store, recipe, seed = aside.store, aside.recipe, aside.seed
    for round_number in range(ROUNDS):
        left = run_keys(store, recipe, seed)
        if not left:
            break
        if round_number and is_registered(store, recipe, seed):
            raise ValueError(f"{recipe} seed {seed} was begun anew while it was moved aside; move it aside again")
        for key in left:
            with suppress(FileNotFoundError):  # a process that was training replaced its resume state
                store.move(key, f"{aside.prefix}/{key}")
    store.write(aside.mark, json.dumps({"recipe": recipe, "seed": seed}).encode())


def _same_head(aside: Aside) -> bool:
    """Whether a stopped move has copied the present run.json and not yet deleted it."""
    prefix = _prefix(aside.recipe, aside.seed)
    for name in filter(HEAD.fullmatch, aside.store.list(prefix)):
        if aside.store.exists(there := f"{aside.prefix}/{prefix}/{name}"):
            return aside.store.read(f"{prefix}/{name}") == aside.store.read(there)
    return False


def _prefix(recipe: str, seed: int) -> str:
    return f"runs/{require_name(recipe, 'recipe')}/seed-{seed}"


def _is_import(recipe: str) -> bool:
    return recipe.startswith("external.")


def _watch_key(recipe: str) -> str:
    """The key of an import's watch."""
    return f"watched/{recipe.partition('.')[2]}.json"
