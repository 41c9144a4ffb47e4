"""The plan of a launch: Dagster runs ordered after their parents, and an estimate of their time."""

from dataclasses import dataclass

from assets.automation import BY_MODEL, anchors_job, comparison_job, exhibits_job, runs_job
from assets.exhibits import ASSETS, list_exhibits
from assets.partitions import anchor_key, is_taught, run_key
from opd_ops.recipe import Recipe
from pipelines.progress import duration
from pipelines.runs.geometry.measuring import is_measured
from pipelines.runs.identity import require_same_contents
from pipelines.runs.trajectories.training import complete, parents, references
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_recipe, find_study
from pipelines.studies.study import Study

LANES = 2  # runs at once
MEASURE_SHARE = 0.015  # of the cost of training an arm, for each of its snapshots
TRAINING = ("trajectory", "training", "evaluation")  # assets of a run that is not measured


@dataclass
class Item:
    """One Dagster run: a job's partition, its parent items, and its cost."""

    name: str
    job: str
    partition: str
    asset: str  # the one whose materialization says that Dagster knows the partition
    assets: tuple[str, ...] = ()  # of the job; all when empty
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    split: float = 1.0  # training's share of the cost
    run: tuple[Recipe, int] | None = None  # None for weights that are fetched and for the comparison
    trains: bool = False
    measures: bool = False
    compares: bool = False


def plan(store: Store, study: Study, arms: list[Recipe], seeds: list[int]) -> list[Item]:
    """The models, the anchors, the arms with all runs that they descend from, and the comparison.

    A run of another study is planned if it is absent, or if a guard reads it and it is not measured. Errors: ValueError
    for a changed recipe, for other weights or data than those of a complete run, or for a run of another study that
    does not define it.
    """
    items: list[Item] = []
    makes: dict[tuple[str, int], str] = {}  # a run and the item that trains it
    compared = {recipe.name for recipe in study.every_arm()}

    def add(item: Item, recipe: Recipe, seed: int, *, measure: bool) -> None:
        needed = [makes[run] for run in (*parents(recipe, seed), (recipe.name, seed)) if run in makes]
        needed += [item_name(*run) for run in references(recipe, seed)]
        item.needs = tuple(dict.fromkeys(needed))
        item.run = (recipe, seed)
        is_planned = (recipe.name, seed) in makes
        item.trains = not is_planned and not complete(store, recipe, seed)
        if not (is_planned or item.trains):
            require_same_contents(store, recipe, seed)
        item.measures = measure and not _is_measured(store, study, recipe, seed)
        parts = item.trains, measure_share(recipe) * item.measures
        item.cost = 1 + cost(recipe) * sum(parts)
        item.split = item.trains / (sum(parts) or 1.0)
        makes.setdefault((recipe.name, seed), item.name)
        items.append(item)

    def add_run(recipe: Recipe, seed: int, *, read: bool = False) -> None:
        """Add a run of the grid after its parents that nothing else in the plan makes.

        read: a guard reads it, so it is measured, whatever its study.
        """
        references_of = references(recipe, seed)
        for name, number in parents(recipe, seed):
            is_read = (name, number) in references_of
            if ((name, number) not in makes or is_read) and not _found(store, study, name, number, is_read):
                add_run(_parent(recipe, seed, name, number), number, read=is_read)
        name = item_name(recipe.name, seed)
        if name in {item.name for item in items}:
            return
        home = study if recipe.study == study.name else find_study(recipe.study)
        if home is not study and recipe in home.models:
            add(Item(name, BY_MODEL[recipe.arm].name, home.name, recipe.arm), recipe, seed, measure=False)
            return
        if home is not study and seed not in home.seeds:
            has = ", ".join(map(str, home.seeds))
            raise ValueError(
                f"study {study.name} needs {recipe.name} seed {seed}, and study {home.name} has seeds {has}"
            )
        measure = recipe.name in compared or read
        shown = Item(name, runs_job.name, run_key(recipe.name, seed), "locking")
        if not measure:
            shown.asset, shown.assets = TRAINING[0], TRAINING
        add(shown, recipe, seed, measure=measure)

    for arm in ("base", "teacher") if is_taught(study) else ("base",):
        if arm not in {model.arm for model in study.models}:
            name = f"{study.name} {'weights' if arm == 'base' else arm}"
            items.append(Item(name, BY_MODEL[arm].name, study.name, arm))
    for model in study.models:
        add(Item(model.name, BY_MODEL[model.arm].name, study.name, model.arm), model, 0, measure=False)
    for recipe, seed in ((recipe, seed) for recipe in study.anchors() for seed in seeds):
        name = f"{study.name} anchor, seed {seed}"
        add(Item(name, anchors_job.name, anchor_key(study.name, seed), "anchor"), recipe, seed, measure=False)
    for recipe, seed in ((recipe, seed) for recipe in sorted(arms, key=cost, reverse=True) for seed in seeds):
        add_run(recipe, seed)
    needs = tuple(item.name for item in items)
    items.append(Item("comparison", comparison_job.name, study.name, "report", needs=needs, compares=True))
    if list_exhibits(study):
        last = ASSETS[-1].key.to_user_string()
        items.append(Item("figures", exhibits_job.name, study.name, last, needs=needs, compares=True))
    return items


def _found(store: Store, study: Study, name: str, seed: int, read: bool) -> bool:
    """Whether a parent run belongs to another study and exists. read: it must be measured too, for a guard."""
    if Trajectory(store, name, seed).end() is None or name in {recipe.name for recipe in _own_models(study)}:
        return False
    return not read or _is_measured(store, study, find_recipe(name), seed)


def _parent(recipe: Recipe, seed: int, name: str, number: int) -> Recipe:
    """The recipe of a parent run. Errors: ValueError if no study has it."""
    try:
        return find_recipe(name)
    except ValueError as error:
        raise ValueError(
            f"{recipe.name} seed {seed} needs {name} seed {number}, which is not complete, and {error}"
        ) from None


def _own_models(study: Study) -> tuple[Recipe, ...]:
    return study.recipes()


def _is_measured(store: Store, study: Study, recipe: Recipe, seed: int) -> bool:
    """Whether a run is measured as its study asks."""
    home = study if recipe.study == study.name else find_study(recipe.study)
    return is_measured(store, recipe, seed, home.measurement)


def item_name(recipe: str, seed: int) -> str:
    return f"{recipe}, seed {seed}"


def cost(recipe: Recipe) -> float:
    """Training cost of a run: sequences seen, with rollouts and the teacher's forward pass."""
    return recipe.objective.cost * recipe.horizon.steps * recipe.rollout.prompts * recipe.rollout.samples


def measure_share(recipe: Recipe) -> float:
    """Cost of measuring a run over that of training it."""
    return MEASURE_SHARE * len(recipe.horizon.snapshot_steps())


def outlook(study: Study, items: list[Item]) -> str:
    """How many runs will be trained and measured, and about how long it takes if the study's pace is known."""
    runs = [item for item in items if item.run]
    words = f"{sum(item.trains for item in runs)} runs to train, {sum(item.measures for item in runs)} to measure"
    if study.pace is None:
        return words
    seconds = study.pace * sum(item.cost for item in runs) / LANES
    return f"{words}: about {duration(seconds)} on {LANES} free cores"
