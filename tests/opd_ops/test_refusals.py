"""What a recipe refuses when it is built, each with one line that says why, and what it lets through."""

import dataclasses
import re
from typing import Any, get_args

import pytest

from opd_ops.recipe import (
    AdamW,
    Constraint,
    Correction,
    Evaluation,
    FinalOf,
    Gate,
    Guard,
    Horizon,
    Mix,
    NormOf,
    Opd,
    Precision,
    Random,
    Reaction,
    Recipe,
    Replay,
    Rlvr,
    Rollout,
    Selection,
    Sft,
    SnapshotOf,
    Student,
    Task,
    Teacher,
)
from opd_ops.recipe.constraint import Mode, Side
from opd_ops.recipe.opd import FOLLOWS, NEVER, SAMPLED, TOP_K, Divergence, Estimator

TEACHER = FinalOf(recipe="tiny.teacher")
REPLAY = Replay(recipe="tiny.opd")
SOURCES = [Student(lag=4), Teacher(), REPLAY]
RANKINGS = ["gap", "absolute-gap", "random", "teacher-entropy", "student-entropy"]
PAIRS = [(e, d) for e in get_args(Estimator) for d in get_args(Divergence)]


def opd(estimator: str = "full", divergence: str = "reverse-kl", **fields: Any) -> Opd:
    """Complete where the estimator and the divergence need more."""
    if estimator in TOP_K:
        fields.setdefault("k", 8)
    if divergence == "jsd":
        fields.setdefault("beta", 0.5)
    return Opd(**{"teacher": TEACHER, "estimator": estimator, "divergence": divergence} | fields)


def recipe(objective: Any, **rollout: Any) -> Recipe:
    return Recipe(
        study="test",
        arm="arm",
        start=FinalOf(recipe="tiny.base"),
        task=Task(name="chains"),
        objective=objective,
        optimizer=AdamW(learning_rate=1e-4),
        horizon=Horizon(steps=10),
        rollout=Rollout(**({"prompts": 4, "samples": 4, "max_new_tokens": 8} | rollout)),
        evaluation=Evaluation(problems=8),
    )


def refused(match: str, build: Any, *args: Any, **fields: Any) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build(*args, **fields)
    assert "\n" not in str(error.value), "one line"


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_an_estimator_is_taken_for_what_it_follows_and_nothing_else(estimator, divergence):
    if divergence in FOLLOWS[estimator]:
        assert vars(recipe(opd(estimator, divergence)).objective)["estimator"] == estimator
    else:
        follows = ", ".join(FOLLOWS[estimator])
        refused(f"'{estimator}' is not that of '{divergence}'; it follows: {follows}", opd, estimator, divergence)


def test_the_table_of_what_follows_what():
    allowed = {pair for pair in PAIRS if pair[1] in FOLLOWS[pair[0]]}
    assert allowed == {
        *(("full", d) for d in ("reverse-kl", "forward-kl", "jsd")),
        *(("teacher-top-k", d) for d in ("reverse-kl", "forward-kl", "jsd")),
        *((e, "reverse-kl") for e in ("policy-gradient", "k2", "student-top-k")),
        ("policy-gradient", "none"),
    }


@pytest.mark.parametrize("estimator", NEVER)
@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_what_other_trainers_offer_is_refused_with_its_reason_and_a_remedy(estimator, divergence):
    refused(f"{estimator!r} is refused: {re.escape(NEVER[estimator])}", opd, estimator, divergence)
    assert ": use " in NEVER[estimator]


def test_an_unknown_estimator_is_told_the_known_ones():
    refused("unknown estimator 'k4'; known: full, policy-gradient", opd, "k4")


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5, 1.5, None, float("nan")])
def test_jsd_needs_a_beta_inside_the_unit_interval(beta):
    refused("beta belongs to jsd", opd, "full", "jsd", beta=beta)


@pytest.mark.parametrize("divergence", ["reverse-kl", "forward-kl"])
def test_no_other_divergence_takes_a_beta(divergence):
    refused("beta belongs to jsd", opd, "full", divergence, beta=0.5)


@pytest.mark.parametrize("estimator", TOP_K)
@pytest.mark.parametrize("k", [None, 0, -1])
def test_top_k_needs_a_k(estimator, k):
    refused("k belongs to teacher-top-k and student-top-k", opd, estimator, k=k)


@pytest.mark.parametrize("estimator", [e for e in FOLLOWS if e not in TOP_K])
def test_nothing_else_takes_a_k(estimator):
    refused("k belongs to", opd, estimator, k=8)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_the_loss_temperature_is_positive(temperature):
    refused("loss temperature is positive", opd, loss_temperature=temperature)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_a_selection_keeps_a_fraction(keep):
    refused(r"fraction in \(0, 1\]", Selection, by="random", keep=keep)


@pytest.mark.parametrize("by", RANKINGS)
@pytest.mark.parametrize(("estimator", "divergence"), [(e, d) for e, d in PAIRS if d in FOLLOWS[e]])
def test_selecting_by_the_sampled_tokens_gap_is_refused_where_it_biases(estimator, divergence, by):
    fields = dict(selection=Selection(by=by, keep=0.25))
    if by.endswith("gap") and estimator in SAMPLED and divergence != "none":
        refused(f"selecting by '{by}' looks at the sampled token", opd, estimator, divergence, **fields)
    else:
        recipe(opd(estimator, divergence, **fields))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("estimator", "divergence"), [(e, d) for e, d in PAIRS if d in FOLLOWS[e]])
def test_sampled_estimators_on_other_rollouts_need_a_correction(estimator, divergence, source):
    objective = opd(estimator, divergence)
    if estimator in SAMPLED and divergence != "none":
        who = "student of 4 steps ago" if isinstance(source, Student) else source.kind
        refused(f"expects the student's samples, and they are the {who}'s: name a", recipe, objective, source=source)
        recipe(objective, source=source, correction=Correction())
    else:
        recipe(objective, source=source)


@pytest.mark.parametrize("estimator", SAMPLED)
def test_sampled_estimators_need_samples_at_the_loss_temperature(estimator):
    refused(
        "at loss temperature 0.7 needs samples drawn at it, and rollout.temperature is 1",
        recipe,
        opd(estimator, loss_temperature=0.7),
    )
    recipe(opd(estimator, loss_temperature=0.7), temperature=0.7)


@pytest.mark.parametrize("estimator", [e for e in FOLLOWS if e not in SAMPLED])
def test_exact_estimators_take_any_sampling_temperature_but_zero(estimator):
    recipe(opd(estimator, loss_temperature=0.7), temperature=1.3)
    refused("greedy rollouts are no sample", recipe, opd(estimator), temperature=0.0)


@pytest.mark.parametrize("objective", [opd(), opd("k2"), Rlvr(), Mix(alpha=0.5, opd=opd())])
def test_the_students_own_rollouts_take_no_correction(objective):
    recipe(objective)
    refused("importance weights of 1: leave the correction out", recipe, objective, correction=Correction())
    refused("a replay names the recipe", recipe, objective, source=Replay(recipe=""), correction=Correction())


def test_demonstrations_have_no_rollout_source_and_no_correction():
    recipe(Sft(stream="clean"))
    for fields in (dict(source=Teacher()), dict(correction=Correction()), dict(source=REPLAY)):
        refused("sft trains on demonstrations", recipe, Sft(stream="clean"), **fields)


REINFORCED = [lambda **fields: Rlvr(**fields), lambda **fields: Mix(alpha=0.5, opd=opd(), rlvr=Rlvr(**fields))]


@pytest.mark.parametrize("make", REINFORCED, ids=["rlvr", "mix"])
def test_a_policy_gradient_needs_groups_at_its_temperature(make):
    refused("group of one sample has no advantage", recipe, make(), samples=1)
    refused("a policy gradient at loss temperature 1 needs samples", recipe, make(), temperature=0.7)
    recipe(make(loss_temperature=0.7), temperature=0.7)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("make", REINFORCED, ids=["rlvr", "mix"])
def test_a_policy_gradient_on_other_rollouts_is_corrected_once(make, source):
    refused("needs a correction, or rlvr.clip", recipe, make(), source=source)
    recipe(make(), source=source, correction=Correction())
    recipe(make(clip=(0.2, 0.28)), source=source)
    refused("leave one of the two out", recipe, make(clip=(0.2, 0.28)), source=source, correction=Correction(cap=None))


def test_a_mix_is_refused_for_either_of_its_terms():
    sampled = Mix(alpha=0.5, opd=opd("policy-gradient"), rlvr=Rlvr(clip=(0.2, 0.28)))
    recipe(sampled)
    refused("'policy-gradient' expects the student's samples", recipe, sampled, source=Teacher())
    paper = dataclasses.replace(sampled, opd=opd("policy-gradient", "none"))
    recipe(paper, source=Teacher())


def test_the_papers_off_policy_arm_builds_as_it_is_trained():
    found = recipe(opd("policy-gradient", "none"), source=Teacher())
    assert not found.rollout.on_policy and found.rollout.correction is None


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_lies_in_the_unit_interval(alpha):
    refused(r"alpha lies in \[0, 1\]", Mix, alpha=alpha, opd=opd())


def test_a_mix_keeps_flat_groups():
    refused("leave drop_flat out", Mix, alpha=0.5, opd=opd(), rlvr=Rlvr(drop_flat=True))
    recipe(Rlvr(drop_flat=True))


@pytest.mark.parametrize("clip", [(0.0, 0.2), (1.0, 0.2), (0.2, 0.0), (-0.2, 0.2)])
def test_a_clip_range_contains_one(clip):
    refused("clip is", Rlvr, clip=clip)


def test_parts_of_a_rollout_are_refused_one_by_one():
    refused("cut at 1 or above, got 0.5", Correction, cap=0.5)
    refused("counts steps from 0, got -1", Student, lag=-1)
    refused("sampling temperature is not negative", Rollout, prompts=1, max_new_tokens=1, temperature=-1.0)
    for name in ("prompts", "samples", "max_new_tokens", "batch"):
        fields = dict(prompts=1, samples=1, max_new_tokens=1, batch=1) | {name: 0}
        refused(f"rollout.{name} is at least 1, got 0", Rollout, **fields)


def test_precision_refuses_bf16_compute_on_fp32_weights():
    refused("use autocast", Precision, compute="bf16", weights="fp32")
    refused("at least 1", Precision, micro_batch=0)
    Precision(compute="autocast", weights="fp32")


def test_a_refusal_names_the_recipe():
    refused(r"recipe test\.arm is refused: ", recipe, Rlvr(), samples=1)


@pytest.mark.parametrize("source", [Student(lag=4), Teacher()])
def test_an_estimator_that_looks_at_every_token_has_no_correction(source):
    refused("estimator 'full' looks at every token", recipe, opd(), source=source, correction=Correction())
    assert recipe(opd(), source=source).rollout.source == source


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Opd(teacher=None, normaliser="mean"), "normaliser"),
        (lambda: Rlvr(std="sample"), "std"),
        (lambda: Selection(by="loss", keep=0.5), "selection.by"),
        (lambda: Mix(alpha=0.5, opd=Opd(teacher=None), scale="norm"), "scale"),
    ],
)
def test_an_unknown_word_is_named_beside_the_known_ones(build, field):
    with pytest.raises(ValueError, match=f"unknown {field} '.*'; known: "):
        build()


def test_a_loss_temperature_that_is_no_number_is_refused():
    for build in (lambda t: Opd(teacher=None, loss_temperature=t), lambda t: Rlvr(loss_temperature=t)):
        for temperature in (float("nan"), 0.0, -1.0):
            with pytest.raises(ValueError, match="loss temperature is positive"):
                build(temperature)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("side", "top", "unknown constraint.side 'top'; known: right, left, both"),
        ("mode", "projected", "unknown constraint.mode 'projected'; known: gradient, update, compressed"),
        ("others", "slow", "unknown constraint.others 'slow'; known: free, frozen"),
        ("roles", ("q", "embed", "norm"), "constraint.roles are of q, k, v, o, gate, up, down, got embed, norm"),
        ("roles", (), "constraint.roles names no matrix"),
        ("rank", 0, "constraint.rank is at least 1, got 0"),
        ("rank", -3, "constraint.rank is at least 1, got -3"),
    ],
)
def test_a_constraint_that_confines_nothing_known_is_refused(field, value, message):
    refused(f"^{re.escape(message)}$", Constraint, basis=Random(), **{field: value})


def test_a_matched_step_is_of_the_compressed_mode():
    words = "^constraint.matched is of mode 'compressed', got mode 'update': leave it out$"
    refused(words, Constraint, basis=Random(), mode="update", matched=True)


@pytest.mark.parametrize("side", get_args(Side))
@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_known_side_and_mode_is_taken(side, mode):
    found = Constraint(basis=Random(), rank=1, side=side, mode=mode, roles=("down",))
    assert (found.side, found.mode, found.roles) == (side, mode, ("down",))


def test_a_snapshot_to_start_from_has_a_step():
    refused("^start.step is a step from 0 up, got -1$", SnapshotOf, recipe="tiny.opd", step=-1)
    assert SnapshotOf(recipe="tiny.opd", step=0).step == 0


def test_a_horizon_has_one_end():
    gate, until = Gate(low=0.3, high=0.7), NormOf(recipe="tiny.opd")
    refused("^a horizon has one end: leave out gate or until$", Horizon, steps=10, gate=gate, until=until)
    assert Horizon(steps=10, gate=gate).until is None and Horizon(steps=10, until=until).gate is None


def test_a_reaction_fits_its_recipe():
    guard = Guard(quantity="stable_rank", reference="tiny.opd")
    release = Reaction(guard=guard, action="release")
    noise = Reaction(guard=guard, action="isotropic-noise", strength=1.0)
    limit, plain = Constraint(basis=Random()), recipe(Sft(stream="clean"))
    refused = {
        "a reaction releases a constraint of mode 'gradient'": (
            {"reaction": release},
            {"reaction": release, "constraint": dataclasses.replace(limit, mode="update")},
        ),
        "noise would leave the constraint's subspace": ({"reaction": noise, "constraint": limit},),
        "a run cannot wait for the other seeds of its own recipe": (
            {"reaction": dataclasses.replace(noise, guard=dataclasses.replace(guard, reference="test.arm"))},
        ),
    }
    for message, changes in refused.items():
        for change in changes:
            with pytest.raises(ValueError, match=re.escape(message)):
                dataclasses.replace(plain, **change)
    assert dataclasses.replace(plain, reaction=release, constraint=limit).reaction == release
    assert dataclasses.replace(plain, reaction=noise).reaction == noise
