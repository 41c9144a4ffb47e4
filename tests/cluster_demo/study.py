"""A small study for the demo: arms of `tiny` at their own horizons, over models so small that their training is short.

What the arms start from is planted: complete runs of a smaller model that learnt nothing, since a start decides the
sizes of all that comes from it. Everything else is the product: recipes, training, snapshots, measurement, comparison.
"""

from dataclasses import replace

from opd_ops import models
from opd_ops.recipe import Recipe
from opd_ops.tasks import chains
from pipelines.runs.trajectories.starts import Model
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study
from pipelines.studies.tiny import ARCHITECTURE, base, sft, study, teacher

SMALL = replace(ARCHITECTURE, hidden_size=64, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2)
ARMS = ("tiny.opd", "tiny.sft-matched", "tiny.sft-slow")
SEED = 0


def plant(store: Store) -> None:
    """What the arms start from, complete."""
    first = _untrained(store, base(), 0, {})
    for number, recipe in enumerate((teacher(), sft()), start=1):
        _untrained(store, recipe, number, {"start": first})


def arms() -> tuple[Study, list[Recipe]]:
    """The study and those of its arms that the demo trains."""
    whole = study()
    known = {recipe.name: recipe for recipe in whole.every_arm()}
    return whole, [known[name] for name in ARMS]


def _untrained(store: Store, recipe: Recipe, number: int, inputs: dict[str, str]) -> str:
    """A complete run that learnt nothing; returns the digest of its weights."""
    config = models.configuration(SMALL, pad=chains.PAD, bos=chains.BOS, eos=chains.EOS)
    weights = models.initialise(config, number)
    trajectory = Trajectory(store, recipe.name, SEED)
    trajectory.register(
        {
            "identity": recipe.identity(),
            "fingerprint": recipe.fingerprint(),
            "inputs": inputs,
            "model": Model(config=config, weights={}, folder=None, digest="").plain_config(),
            "provenance": {},
        }
    )
    digest = trajectory.commit(0, weights, None)
    row = {"step": 0, "temperature": 1.0, "accuracy": 0.0, "stderr": 0.0, "n": 1}
    trajectory.finish({"step": 0, "digest": digest, "snapshots": [0], "evaluation": [row]})
    return digest
