"""The suite core: base (pretraining) -> teacher (clean chains) and, per seed, sft (noisy chains, the anchor) -> opd,
rlvr, sft-matched.
"""

from opd_ops.recipe import (
    AdamW,
    Architecture,
    Evaluation,
    FinalOf,
    Fresh,
    Gate,
    Horizon,
    Objective,
    Opd,
    Recipe,
    Rlvr,
    Rollout,
    Sft,
    Task,
)
from opd_ops.tasks.chains import VOCABULARY

ARCHITECTURE = Architecture(
    vocab_size=VOCABULARY,
    hidden_size=128,
    num_hidden_layers=2,
    intermediate_size=384,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
)
TASK = Task(name="chains", options={"operations": 3})
EVALUATION = Evaluation(problems=256, samples=4)
NEW_TOKENS = 24  # a whole answer is 21 tokens
TEACHER = FinalOf(recipe="tiny.teacher", seed=0)
POST = AdamW(learning_rate=3e-5)
STEPS = 100
# The gate opens near step 90, so 5 % of what is trained is about 5 steps, not 5 % of the limit.
EARLY = tuple(sorted({2**i for i in range(9)} | set(range(5, 301, 5))))


def base() -> Recipe:
    return Recipe(
        study="tiny",
        arm="base",
        start=Fresh(architecture=ARCHITECTURE),
        task=Task(name="chains", options={"operations": 2, "tag": "C"}),
        objective=Sft(stream="corpus"),
        optimizer=AdamW(learning_rate=4e-3, weight_decay=0.05, warmup=10, schedule="cosine"),
        horizon=Horizon(steps=400, gate=Gate(low=0.75, high=1.0, temperature=0.0, every=20), snapshots=()),
        rollout=Rollout(prompts=64, max_new_tokens=NEW_TOKENS),
        evaluation=EVALUATION,
    )


def teacher() -> Recipe:
    return Recipe(
        study="tiny",
        arm="teacher",
        start=FinalOf(recipe="tiny.base", seed=0),
        task=TASK,
        objective=Sft(stream="clean"),
        optimizer=AdamW(learning_rate=1e-3, warmup=10, schedule="cosine"),
        horizon=Horizon(steps=400, gate=Gate(low=0.95, high=1.0), snapshots=()),
        rollout=Rollout(prompts=64, max_new_tokens=NEW_TOKENS),
        evaluation=EVALUATION,
    )


def sft() -> Recipe:
    """From the base to the anchor."""
    return Recipe(
        study="tiny",
        arm="sft",
        start=FinalOf(recipe="tiny.base", seed=0),
        task=TASK,
        objective=Sft(stream="noisy"),
        optimizer=AdamW(learning_rate=1e-3, warmup=10),
        horizon=Horizon(steps=300, gate=Gate(low=0.35, high=0.7), snapshots=EARLY),
        rollout=Rollout(prompts=64, max_new_tokens=NEW_TOKENS),
        evaluation=EVALUATION,
    )


def opd() -> Recipe:
    return from_anchor("opd", Opd(teacher=TEACHER))


def rlvr() -> Recipe:
    return from_anchor("rlvr", Rlvr(), prompts=8, samples=8)


def sft_matched() -> Recipe:
    """The matched control: offline cross-entropy with OPD's start, learning rate, steps and batch."""
    return from_anchor("sft-matched", Sft(stream="clean"))


def from_anchor(arm: str, objective: Objective, prompts: int = 64, samples: int = 1) -> Recipe:
    return Recipe(
        study="tiny",
        arm=arm,
        start=FinalOf(recipe="tiny.sft"),
        task=TASK,
        objective=objective,
        optimizer=POST,
        horizon=Horizon(steps=STEPS),
        rollout=Rollout(prompts=prompts, samples=samples, max_new_tokens=NEW_TOKENS),
        evaluation=EVALUATION,
    )
