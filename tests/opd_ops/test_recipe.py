import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest

from opd_ops.recipe import (
    AdamW,
    Constraint,
    Correction,
    Evaluation,
    FinalOf,
    Fresh,
    Gate,
    Guard,
    Horizon,
    Mix,
    NormOf,
    Opd,
    Precision,
    Reaction,
    Recipe,
    Replay,
    Resources,
    Rlvr,
    Rollout,
    Selection,
    Sft,
    SnapshotOf,
    Student,
    Task,
    UpdateOf,
    Weights,
    differences,
)
from tests.opd_ops.conftest import ARCHITECTURE

RECIPE = Recipe(
    study="tiny",
    arm="opd",
    start=FinalOf(recipe="tiny.sft", seed=1),
    task=Task(name="chains", options={"operations": 3}),
    objective=Opd(teacher=FinalOf(recipe="tiny.teacher", seed=0)),
    optimizer=AdamW(learning_rate=3e-5),
    horizon=Horizon(steps=100, gate=Gate(low=0.3, high=0.7), snapshots=(1, 2)),
    rollout=Rollout(prompts=64, max_new_tokens=24),
    evaluation=Evaluation(problems=256),
)
ALTERNATIVES = (
    RECIPE,
    dataclasses.replace(RECIPE, start=Fresh(architecture=ARCHITECTURE), objective=Sft(stream="clean")),
    dataclasses.replace(
        RECIPE,
        start=Weights(ref="models/x"),
        objective=Mix(
            alpha=0.5,
            opd=Opd(teacher=None, selection=Selection(by="random", keep=0.5)),
            rlvr=Rlvr(clip=(0.2, 0.28)),
        ),
        rollout=Rollout(prompts=8, samples=8, max_new_tokens=24, source=Replay(recipe="tiny.opd")),
    ),
    dataclasses.replace(
        RECIPE,
        objective=Rlvr(),
        rollout=Rollout(prompts=8, samples=8, max_new_tokens=24, source=Student(lag=4), correction=Correction()),
    ),
    dataclasses.replace(
        RECIPE,
        start=SnapshotOf(recipe="tiny.sft", step=20),
        objective=Sft(stream="noisy"),
        constraint=Constraint(basis=UpdateOf(recipe="tiny.sft", step=20)),
        horizon=Horizon(steps=80, until=NormOf(recipe="tiny.opd")),
    ),
    dataclasses.replace(
        RECIPE,
        reaction=Reaction(
            guard=Guard(quantity="similarity", reference="tiny.rlvr"), action="isotropic-noise", strength=1.0
        ),
    ),
)


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, f"{value[-1]}x" if isinstance(value[-1], str) else value[-1] + 1) if value else (1,)
    return value | {"new": 1} if isinstance(value, dict) else value + 1


def with_field(node, name, value):
    """A copy that no rule has looked at: here even a refused recipe must have a fingerprint of its own."""
    copied = copy.copy(node)
    object.__setattr__(copied, name, value)
    return copied


def variants(node) -> Iterator[tuple[str, object]]:
    """(path, copy) with one field changed, for every field of a tree of dataclasses."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            for path, variant in variants(value):
                yield f"{field.name}.{path}", with_field(node, field.name, variant)
        else:
            yield field.name, with_field(node, field.name, changed(value))


CASES = [
    pytest.param(recipe, path, variant, id=f"{recipe.objective.kind}-{path}")
    for recipe in ALTERNATIVES
    for path, variant in variants(recipe)
]


@pytest.mark.parametrize(("recipe", "path", "variant"), CASES)
def test_the_fingerprint_follows_every_field_but_the_resources(recipe, path, variant):
    if path.startswith("resources."):
        assert variant.fingerprint() == recipe.fingerprint()
        assert differences(recipe.identity(), variant.identity()) == []
    else:
        assert variant.fingerprint() != recipe.fingerprint()
        (line,) = differences(recipe.identity(), variant.identity())
        assert line.startswith("task.options.new: " if path == "task.options" else f"{path}: ")


def test_the_cases_reach_every_dataclass():
    paths = {path for case in CASES for path in [case.values[1]]}
    for expected in (
        "study", "start.recipe", "start.ref", "start.architecture.initializer_range", "objective.teacher.seed",
        "objective.stream", "objective.std", "optimizer.eps", "horizon.gate.every", "rollout.temperature",
        "evaluation.temperatures", "precision.micro_batch", "objective.opd.selection.keep", "rollout.source.lag",
        "rollout.source.recipe", "rollout.correction.cap", "objective.rlvr.std", "resources.rollout.actors",
        "resources.threads", "task.options", "constraint.basis.step", "constraint.roles", "horizon.until.recipe",
        "start.moments", "reaction.guard.every",
    ):  # fmt: skip
        assert expected in paths


def test_fields_that_came_later_are_left_out_where_they_say_nothing_new():
    """Runs that were stored before a field existed stay runs of the same recipe."""
    identity = RECIPE.identity()
    assert "constraint" not in identity and "until" not in identity["horizon"]
    fresh = dataclasses.replace(RECIPE, start=Fresh(architecture=ARCHITECTURE)).identity()
    assert "family" not in fresh["start"]["architecture"]
    told = dataclasses.replace(RECIPE, constraint=Constraint(basis=UpdateOf(recipe="tiny.sft", step=20))).identity()
    assert told["constraint"]["basis"] == {"recipe": "tiny.sft", "step": 20, "seed": None, "kind": "update"}
    llama = dataclasses.replace(ARCHITECTURE, family="llama")
    assert dataclasses.replace(RECIPE, start=Fresh(architecture=llama)).identity()["start"]["architecture"]["family"]


def test_the_fingerprint_is_the_same_in_every_process():
    script = "from pipelines.studies.tiny import opd; print(opd().fingerprint())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1 and len(runs.pop().strip()) == 64


def test_the_fingerprint_does_not_depend_on_the_order_of_options():
    one, other = (
        dataclasses.replace(RECIPE, task=Task(name="chains", options=options))
        for options in ({"operations": 3, "tag": "C"}, {"tag": "C", "operations": 3})
    )
    assert one.fingerprint() == other.fingerprint()


def test_the_identity_is_plain_json_and_says_what_kind_each_part_is():
    identity = RECIPE.identity()
    assert identity == json.loads(json.dumps(identity))
    assert "resources" not in identity
    assert (identity["start"]["kind"], identity["objective"]["kind"]) == ("final", "opd")


def test_a_start_of_another_kind_is_another_recipe():
    kinds = {dataclasses.replace(RECIPE, start=start).fingerprint() for start in (
        FinalOf(recipe="x"), Weights(ref="x"), Fresh(architecture=ARCHITECTURE)
    )}  # fmt: skip
    assert len(kinds) == 3


def test_differences_show_both_values_by_field():
    later = dataclasses.replace(
        RECIPE,
        objective=Opd(teacher=None),
        optimizer=dataclasses.replace(RECIPE.optimizer, learning_rate=1e-4, schedule="cosine"),
        horizon=dataclasses.replace(RECIPE.horizon, snapshots=None),
    )
    assert differences(RECIPE.identity(), later.identity()) == [
        "horizon.snapshots: [1, 2] -> null",
        'objective.teacher: {"kind": "final", "recipe": "tiny.teacher", "seed": 0} -> null',
        "optimizer.learning_rate: 3e-05 -> 0.0001",
        'optimizer.schedule: "constant" -> "cosine"',
    ]
    assert differences({"old": 1}, {"new": 2}) == ["new: null -> 2", "old: 1 -> null"]
    assert differences(RECIPE.identity(), RECIPE.identity()) == []


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100, 300, 1000])
def test_snapshots_are_log_spaced_and_every_twentieth(steps):
    found = Horizon(steps=steps).snapshot_steps()
    assert list(found) == sorted(set(found))
    assert found[0] == 1 and found[-1] == steps
    assert {2**i for i in range(12) if 2**i <= steps} <= set(found)
    for twentieth in range(1, 21):
        nearest = min(abs(step - steps * twentieth / 20) for step in (0, *found))
        assert nearest <= 0.5
    assert len(found) <= 20 + steps.bit_length()


def test_snapshots_of_a_hundred_steps():
    expected = {1, 2, 4, 8, 16, 32, 64} | set(range(5, 101, 5))
    assert Horizon(steps=100).snapshot_steps() == tuple(sorted(expected))


def test_named_snapshots_are_taken_as_they_are():
    assert Horizon(steps=100, snapshots=(3, 50)).snapshot_steps() == (3, 50)
    assert Horizon(steps=100, snapshots=()).snapshot_steps() == ()


def parts(node):
    yield node
    for field in dataclasses.fields(node):
        if dataclasses.is_dataclass(getattr(node, field.name)):
            yield from parts(getattr(node, field.name))


def test_nothing_in_a_recipe_can_be_reassigned_or_given_by_position():
    for recipe in ALTERNATIVES:
        for part in parts(recipe):
            field, build = dataclasses.fields(part)[0].name, cast(Any, type(part))
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, field, None)
            with pytest.raises(TypeError):
                build(getattr(part, field))


def test_a_recipe_is_named_by_study_and_arm_and_its_optimizer_in_words():
    assert RECIPE.name == "tiny.opd"
    assert RECIPE.optimizer.name == "adamw(b1=0.9, b2=0.95, eps=1e-08)"
    assert (Precision().compute, Resources().gpus) == ("fp32", 0.0)


@pytest.mark.parametrize("arm", ["../opd", "a/b", "a\\b", "a\nb", "a b", "", "ä", "x" * 200])
def test_a_name_that_is_no_folder_is_refused(arm):
    with pytest.raises(ValueError, match=r"^recipe '[^\n]*' cannot name a folder: use up to 200 letters"):
        dataclasses.replace(RECIPE, study="" if not arm else "tiny", arm=arm)


def test_recipes_load_nothing_heavy():
    script = "import sys, opd_ops.recipe; print(sorted({'torch', 'transformers', 'numpy', 'ray'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
