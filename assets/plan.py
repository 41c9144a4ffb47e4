"""What a launch has to run: Dagster runs in an order in which none waits for a later one, and what they will take."""

from dataclasses import dataclass

from assets.automation import anchors_job, comparison_job, models_job, runs_job
from assets.partitions import anchor_key, run_key
from opd_ops.recipe import Recipe
from pipelines.progress import duration
from pipelines.runs.geometry.measuring import measured
from pipelines.runs.trajectories.training import complete, parents, references
from pipelines.store.objects import Store
from pipelines.studies.catalog import find_recipe
from pipelines.studies.study import Study

LANES = 2  # runs at once
MEASURE_SHARE = 0.015  # of the cost of training an arm, for each of its snapshots
TRAINING = ("trajectory", "training", "evaluation")  # assets of a run that is not measured


@dataclass
class Item:
    """One Dagster run: a job's partition, the items it waits for, and what it cost."""

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
    """The models, the anchors, the arms with whatever other runs they descend from, and the comparison.

    Errors: ValueError for a changed recipe.
    """
    items: list[Item] = []
    makes: dict[tuple[str, int], str] = {}  # a run and the item that trains it
    compared = {recipe.name for recipe in study.every_arm()}

    def add(item: Item, recipe: Recipe, seed: int, *, measure: bool) -> None:
        needed = [makes[run] for run in (*parents(recipe, seed), (recipe.name, seed)) if run in makes]
        needed += [item_name(*run) for run in references(recipe, seed)]
        item.needs = tuple(dict.fromkeys(needed))
        item.run = (recipe, seed)
        item.trains = (recipe.name, seed) not in makes and not complete(store, recipe, seed)
        item.measures = measure and not measured(store, recipe, seed, study.measurement)
        parts = item.trains, measure_share(recipe) * item.measures
        item.cost = 1 + cost(recipe) * sum(parts)
        item.split = item.trains / (sum(parts) or 1.0)
        makes.setdefault((recipe.name, seed), item.name)
        items.append(item)

    def add_run(recipe: Recipe, seed: int) -> None:
        """A run of the grid, behind the runs it descends from that nothing else of the plan makes."""
        read = references(recipe, seed)
        for name, number in parents(recipe, seed):
            if (name, number) not in makes or (name, number) in read:
                add_run(find_recipe(name), number)
        name = item_name(recipe.name, seed)
        if name in {item.name for item in items}:
            return
        measure = recipe.name in compared
        shown = Item(name, runs_job.name, run_key(recipe.name, seed), "locking")
        if not measure:
            shown.asset, shown.assets = TRAINING[0], TRAINING
        add(shown, recipe, seed, measure=measure)

    if not study.models:
        items.append(Item(f"{study.name} weights", models_job.name, study.name, "teacher"))
    for model in study.models:
        add(Item(model.name, models_job.name, study.name, model.arm, (model.arm,)), model, 0, measure=False)
    for recipe, seed in ((recipe, seed) for recipe in study.anchors() for seed in seeds):
        name = f"{study.name} anchor, seed {seed}"
        add(Item(name, anchors_job.name, anchor_key(study.name, seed), "anchor"), recipe, seed, measure=False)
    for recipe, seed in ((recipe, seed) for recipe in sorted(arms, key=cost, reverse=True) for seed in seeds):
        add_run(recipe, seed)
    items.append(
        Item(
            "comparison",
            comparison_job.name,
            study.name,
            "report",
            needs=tuple(item.name for item in items),
            compares=True,
        )
    )
    return items


def item_name(recipe: str, seed: int) -> str:
    return f"{recipe}, seed {seed}"


def cost(recipe: Recipe) -> float:
    """Work of training a run: sequences seen, with rollouts and a teacher's forward counted in."""
    factor = {"sft": 1.0, "rlvr": 1.7, "opd": 2.2, "mix": 2.6}[recipe.objective.kind]
    return factor * recipe.horizon.steps * recipe.rollout.prompts * recipe.rollout.samples


def measure_share(recipe: Recipe) -> float:
    """Work of measuring a run over that of training it."""
    return MEASURE_SHARE * len(recipe.horizon.snapshot_steps())


def outlook(study: Study, items: list[Item]) -> str:
    """How many runs are trained and measured, and about how long it takes where the study's pace is known."""
    runs = [item for item in items if item.run]
    words = f"{sum(item.trains for item in runs)} runs to train, {sum(item.measures for item in runs)} to measure"
    if study.pace is None:
        return words
    seconds = study.pace * sum(item.cost for item in runs) / LANES
    return f"{words}: about {duration(seconds)} on {LANES} free cores"
