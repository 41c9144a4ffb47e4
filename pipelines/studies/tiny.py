"""The tiny study: a 398,080-parameter Qwen3 on digit chains, trained for real in minutes on two cores.

base (pretraining) -> teacher (clean chains) and, per seed, sft (noisy chains, the anchor) -> opd, rlvr, sft-matched,
and the arms of the suite `objectives`.
"""

from dataclasses import replace

from opd_ops.recipe import (
    AdamW,
    Architecture,
    Evaluation,
    FinalOf,
    Fresh,
    Gate,
    Horizon,
    Mix,
    Objective,
    Opd,
    Recipe,
    Rlvr,
    Rollout,
    Selection,
    Sft,
    Student,
    Task,
    Teacher,
)
from opd_ops.tasks.chains import VOCABULARY
from pipelines.studies.study import Study

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
ALPHAS = (0.75, 0.5, 0.25, 0.05, 0.01)  # weight of OPD in the mixes, as in the paper
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
    return _from_anchor("opd", Opd(teacher=TEACHER))


def rlvr() -> Recipe:
    return _from_anchor("rlvr", Rlvr(), prompts=8, samples=8)


def sft_matched() -> Recipe:
    """The matched control: offline cross-entropy with OPD's start, learning rate, steps and batch."""
    return _from_anchor("sft-matched", Sft(stream="clean"))


def objectives() -> tuple[Recipe, ...]:
    """Arms one factor away from `opd`, which is the exact full-vocabulary reverse KL on 64 prompts (arXiv 2606.07082).

    opd-pg                  the sampled token's policy gradient, what the paper trains
    opd-top50, -top25       half or a quarter of each response's tokens, those with the largest log s(y) - log T(y). The
                            paper selects so with the policy gradient, which then follows no divergence; here each kept
                            token has its exact gradient
    opd-random50, -random25 as many tokens, drawn at random
    opd-teacher-rollouts    the teacher's responses
    opd-stale16             the responses of the student of 16 steps ago
    opd-self                no other teacher than the start, which reads the privileged prompt
    opd-mix-75 to -01       alpha * OPD + (1 - alpha) * RLVR, unscaled, as in the paper: see `mix`
    """
    opds = {
        "opd-pg": Opd(teacher=TEACHER, estimator="policy-gradient"),
        "opd-top50": Opd(teacher=TEACHER, selection=Selection(by="gap", keep=0.5)),
        "opd-random50": Opd(teacher=TEACHER, selection=Selection(by="random", keep=0.5)),
        "opd-top25": Opd(teacher=TEACHER, selection=Selection(by="gap", keep=0.25)),
        "opd-random25": Opd(teacher=TEACHER, selection=Selection(by="random", keep=0.25)),
        "opd-self": Opd(teacher=None),
    }
    sources = {"opd-teacher-rollouts": Teacher(), "opd-stale16": Student(lag=16)}
    return (
        *(replace(opd(), arm=arm, objective=objective) for arm, objective in opds.items()),
        *(replace(opd(), arm=arm, rollout=replace(opd().rollout, source=source)) for arm, source in sources.items()),
        *(mix(alpha) for alpha in ALPHAS),
    )


def mix(alpha: float) -> Recipe:
    """OPD and RLVR on the same rollouts: policy-gradient OPD, both terms meaned over each sequence.

    RLVR needs groups, so the batch is that of `rlvr`, 8 prompts x 8, and not that of `opd`: a mix differs from `opd` in
    batch shape, estimator and normaliser too. Compare mixes with each other; beside `opd` they need an opd-8x8 control.
    """
    term = Opd(teacher=TEACHER, estimator="policy-gradient", normaliser="sequence")
    return _from_anchor(f"opd-mix-{100 * alpha:02.0f}", Mix(alpha=alpha, opd=term, rlvr=Rlvr()), prompts=8, samples=8)


def _from_anchor(arm: str, objective: Objective, prompts: int = 64, samples: int = 1) -> Recipe:
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


def study() -> Study:
    return Study(
        name="tiny",
        title="Digit chains on a 0.4M-parameter Qwen3, trained from scratch",
        models=(base(), teacher()),
        suites={"core": (sft(), opd(), rlvr(), sft_matched()), "objectives": objectives()},
        seeds=(0, 1, 2),
        anchor="sft",
        nightly=("core",),
        minutes="3-5 minutes",
    )
