"""The suite objectives: arms one factor away from `opd`, and mixtures with `rlvr`."""

from dataclasses import replace

from opd_ops.recipe import Mix, Opd, Recipe, Rlvr, Selection, Student, Teacher
from pipelines.studies.tiny.core import TEACHER, from_anchor, opd

ALPHAS = (0.75, 0.5, 0.25, 0.05, 0.01)  # weight of OPD in the mixes, as in the paper


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
    batch shape, estimator and normaliser too. Compare mixes with each other; beside `opd` they need
    opd-8x8, of the suite controls.
    """
    term = Opd(teacher=TEACHER, estimator="policy-gradient", normaliser="sequence")
    return from_anchor(f"opd-mix-{100 * alpha:02.0f}", Mix(alpha=alpha, opd=term, rlvr=Rlvr()), prompts=8, samples=8)
