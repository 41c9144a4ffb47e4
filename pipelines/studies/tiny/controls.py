"""The suite controls: twins of opd and rlvr that differ in one setting, where the paper's runs differ in many at once.

    rlvr-32x8     rlvr on four times its batch, 32 prompts x 8 samples: is it the objective, or the gradient's noise?
    opd-8x8       opd on rlvr's batch, 8 prompts x 8 samples: matched batch
    opd-mix-00    the mixtures' alpha = 0: rlvr by the code path of a mix, at OPD's batch of 64 sequences
    rlvr-norm     rlvr trained on until its update is as large as opd's: matched norm
    sft-slow      sft from the base at opd's learning rate: matched rate
    opd-fast      opd at sft's learning rate: matched rate

The matched offline control of opd, sft-matched (start, rate, steps, batch), is in the suite core.
"""

from dataclasses import replace

from opd_ops.recipe import Horizon, NormOf, Recipe
from pipelines.studies.tiny.core import POST, opd, rlvr, sft
from pipelines.studies.tiny.objectives import mix

LIMIT = 600  # steps in which rlvr reaches the norm of opd's update


def controls() -> tuple[Recipe, ...]:
    batch, rate = rlvr().rollout, sft().optimizer.learning_rate
    until_opd = Horizon(steps=LIMIT, snapshots=tuple(range(10, LIMIT + 1, 10)), until=NormOf(recipe="tiny.opd"))
    return (
        replace(rlvr(), arm="rlvr-32x8", rollout=replace(batch, prompts=4 * batch.prompts)),
        replace(opd(), arm="opd-8x8", rollout=batch),
        mix(0.0),
        replace(rlvr(), arm="rlvr-norm", horizon=until_opd),
        replace(sft(), arm="sft-slow", optimizer=POST, horizon=opd().horizon),
        replace(opd(), arm="opd-fast", optimizer=replace(POST, learning_rate=rate)),
    )
