"""The process that is disturbed: `python -m tests.chaos.driver URI RUNS` trains and measures runs until all are whole.

The runs are of one arm, whose rollouts are drawn by an actor of their own, over seeds 0 to RUNS - 1. A line is printed
as each is whole.
"""

import sys

from opd_ops.recipe import Recipe, Resources, Rollout, Workers
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.geometry.measuring import measure_run
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement
from tests.pipelines.runs import mini

CUTS = Measurement(k=(4,), hill_k=(4,))
ROLLOUT = Rollout(prompts=2, samples=2, max_new_tokens=6, batch=1)  # four sampling calls a step


def recipe(*, crew: bool) -> Recipe:
    """RLVR from the end of `mini.pre`; crew: beside an actor that draws. Both are one recipe, with the same bytes."""
    resources = Resources(rollout=Workers(actors=1)) if crew else Resources()
    return mini.arm("rlvr", rollout=ROLLOUT, resources=resources)


def main(uri: str, runs: str) -> None:
    store, disturbed = Store(uri), recipe(crew=True)
    with cluster(3):
        for seed in range(int(runs)):
            train(store, disturbed, seed)
            measure_run(store, disturbed, seed, CUTS)
            print(seed, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
