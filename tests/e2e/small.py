"""The smallest study that `opd study run` can be asked for: one arm of `tiny`, from parents that learnt nothing."""

from dataclasses import replace

from opd_ops import models
from opd_ops.recipe import Recipe
from opd_ops.tasks import chains
from pipelines.runs.trajectories.starts import Model
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.tiny import ARCHITECTURE, base, sft, sft_matched, teacher

ARM = sft_matched()
ARGUMENTS = ("study", "run", "tiny", "--recipe", ARM.name, "--seed", "0")
SMALL = replace(ARCHITECTURE, hidden_size=64, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2)


def plant(store: Store) -> None:
    """The runs that the arm needs, complete and untrained."""
    for recipe in (base(), teacher(), sft()):
        _untrained(store, recipe)


def _untrained(store: Store, recipe: Recipe) -> None:
    """A complete run of a smaller model that learnt nothing: what the arm starts from decides its sizes."""
    config = models.configuration(SMALL, pad=chains.PAD, bos=chains.BOS, eos=chains.EOS)
    weights = models.initialise(config, 0)
    trajectory = Trajectory(store, recipe.name, 0)
    trajectory.register(
        {
            "identity": recipe.identity(),
            "fingerprint": recipe.fingerprint(),
            "inputs": {},
            "model": Model(config=config, weights={}, folder=None, digest="").plain_config(),
            "provenance": {},
        }
    )
    digest = trajectory.commit(0, weights, None)
    row = {"step": 0, "temperature": 1.0, "accuracy": 0.0, "stderr": 0.0, "n": 1}
    trajectory.finish({"step": 0, "digest": digest, "snapshots": [0], "evaluation": [row]})
