"""What goes wrong in a step ends in one line, with the last good state kept, and the run can go on."""

import copy
import json
import os
import random
import time
from dataclasses import replace

import pytest
import torch

from opd_ops.recipe import FinalOf, Fresh, Opd, Rlvr, Rollout, Weights, differences
from opd_ops.tasks.chains import Chains
from opd_ops.tasks.guard import Guarded
from opd_ops.teacher.local import LocalTeacher
from opd_ops.training.loop import Trainer
from pipelines import lake
from pipelines.runs.geometry.measuring import is_measured, measure_run
from pipelines.runs.provenance import provenance
from pipelines.runs.trajectories.failures import StepFailed
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import complete, train
from pipelines.store.objects import Store, Unwritable
from pipelines.store.trajectory import Trajectory
from tests.pipelines.disks import Disk
from tests.pipelines.runs.conftest import CUTS
from tests.pipelines.runs.mini import TASK


def fails_at(step, patch, error):
    """Steps from `step` on raise, until the patch is undone."""
    backward = Trainer._backward

    def failing(self, terms):
        if self.step + 1 >= step:
            raise error
        return backward(self, terms)

    patch.setattr(Trainer, "_backward", failing)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FloatingPointError("the opd loss is nan"), "the opd loss is nan"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory: set resources.checkpoint_activations"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"), "out of memory"),
        (ValueError("task chains: the verifier took longer than 10 s\nmore"), "the verifier took longer than 10 s"),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("name", ["opd", "rlvr"])
def test_a_failed_step_keeps_the_state_before_it_and_the_run_goes_on(
    name, error, line, arm, grown, seeded, contents, monkeypatch
):
    store = seeded(*{"opd": ("pre", "teacher"), "rlvr": ("pre",)}[name])
    with monkeypatch.context() as patch:
        fails_at(6, patch, error)
        run = TrainingRun(store, arm(name), 0, {})
        with pytest.raises(StepFailed) as caught:
            run.work(7)
    message = str(caught.value)
    assert line in message and "\n" not in message
    assert f"mini.{name} seed 0: the state after step 5 is kept, its last snapshot is step 3" in message
    assert Trajectory(store, f"mini.{name}", 0).load_resume()[0] == 5
    again = TrainingRun(store, arm(name), 0, {})
    assert again.trainer.step == 5
    while not again.work(5).finished:
        pass
    # Rollouts are kept in other parts than those of a run that never failed; everything else is the same.
    ends = [
        {k: v for k, v in contents(s).items() if f"mini.{name}/" in k and "/rollouts/" not in k} for s in (store, grown)
    ]
    assert ends[0] == ends[1]


def test_a_mistake_in_the_code_keeps_its_traceback(arm, store, monkeypatch):
    fails_at(2, monkeypatch, TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        TrainingRun(store, arm("pre"), 0, {}).work(7)


def test_a_teacher_of_other_tokens_is_refused(arm, seeded, monkeypatch):
    from pipelines.runs.trajectories import starts, teaching

    store = seeded("pre", "teacher")
    student = starts.load(store, FinalOf(recipe="mini.pre", seed=0), 0, TASK)
    words = {"a": {"x": 0, "y": 1, "z": 2}, "b": {"x": 0, "z": 1, "y": 2}}
    monkeypatch.setattr(teaching, "_tokens", lambda folder: words[folder])
    of = lambda folder: replace(student, folder=folder)
    with pytest.raises(ValueError, match=r"tokenizers of a and b differ, first at token 'y' \(id 1 and 2\)"):
        teaching.require_same_vocabulary(of("a"), of("b"))
    with pytest.raises(ValueError, match="the student's tokens are of a and the teacher's of its task"):
        teaching.require_same_vocabulary(of("a"), of(None))
    config = copy.deepcopy(student.config)
    config.vocab_size = 64
    with pytest.raises(ValueError, match="vocabularies of 32 and 64 tokens"):
        teaching.require_same_vocabulary(student, replace(student, config=config))
    teaching.require_same_vocabulary(of("a"), of("a"))


def test_prompts_longer_than_the_window_are_refused_before_any_work(arm, store):
    start = arm("pre").start
    narrow = Fresh(architecture=replace(start.architecture, max_position_embeddings=8))
    with pytest.raises(ValueError, match=r"task chains: a prompt of \d+ tokens .* window of 8"):
        TrainingRun(store, arm("pre", start=narrow), 0, {})
    assert Trajectory(store, "mini.pre", 0).steps() == []


def test_no_prompts_are_refused(arm, store, monkeypatch):
    monkeypatch.setattr(Chains, "problems", lambda self, split, count, rng: [])
    with pytest.raises(ValueError, match="task chains gave no prompts"):
        TrainingRun(store, arm("pre"), 0, {})


def test_flat_groups_end_a_run_that_can_be_continued(arm, seeded, monkeypatch):
    store = seeded("pre")
    recipe = arm("rlvr", objective=Rlvr(flat_limit=3))
    with monkeypatch.context() as patch:
        patch.setattr(Chains, "verify", lambda self, problem, response: 0.0)
        with pytest.raises(StepFailed, match="step 3: every group's rewards were equal for 3 steps"):
            TrainingRun(store, recipe, 0, {}).work(7)
    run = TrainingRun(store, recipe, 0, {})
    assert run.trainer.step == 2 and run.trainer.zero_variance_steps == 2


@pytest.mark.parametrize("fault", ["raises", "hangs"])
def test_a_verifier_that_fails_ends_the_step(fault, arm, seeded, monkeypatch):
    store = seeded("pre")

    def verify(self, problem, response):
        raise RuntimeError("no such operator")

    recipe = arm("rlvr", task=replace(TASK, overtime="fail"))
    with monkeypatch.context() as patch:
        run = TrainingRun(store, recipe, 0, {})
        run.work(2)
        if fault == "raises":
            patch.setattr(Chains, "verify", verify)
            line = r"task chains: the verifier raised RuntimeError: no such operator"
        else:
            slow(run)
            line = r"the verifier took longer than 0\.3 s"
        with pytest.raises(StepFailed, match=line) as caught:
            run.work(5)
    assert "\n" not in str(caught.value)
    assert TrainingRun(store, recipe, 0, {}).trainer.step == 2


def test_a_response_that_hangs_the_verifier_counts_as_wrong_and_the_run_ends(arm, seeded, monkeypatch):
    """One response of step 3, and one of the last evaluation; interrupted and resumed, the counts are the same."""
    store = seeded("pre")
    recipe = arm("rlvr")
    late, checked = Chains.verify, []

    def rewards(self, answered):
        # By call: two temperatures at step 0, the steps 1 to 7, two temperatures at the end.
        self.overtimes += 1 if len(checked) in (4, 9) else 0
        checked.append(len(answered))
        return [late(self.task, problem, tokens) for problem, tokens in answered]

    monkeypatch.setattr(Guarded, "rewards", rewards)
    TrainingRun(store, recipe, 0, {}).work(4)
    assert TrainingRun(store, recipe, 0, {}).work(7).finished
    training = lake.read_partition(store, "training", recipe=recipe.name, seed=0)
    evaluation = lake.read_partition(store, "evaluation", recipe=recipe.name, seed=0)
    assert training["overtimes"].to_list() == [0, 0, 1, 0, 0, 0, 0]
    assert evaluation["overtimes"].sum() == 1 and evaluation.filter(step=0)["overtimes"].sum() == 0


def test_a_hanging_response_goes_through_the_recipes_own_guard(arm, seeded):
    store, recipe = seeded("pre"), arm("rlvr")
    run = TrainingRun(store, recipe, 0, {})
    run.work(2)
    slow(run)
    run.work(1)
    assert run.trainer.step == 3 and run.tables["training"][-1]["overtimes"] >= 1
    assert run.tables["training"][-1]["reward"] == 0.0


def test_overtime_is_part_of_what_a_run_is_and_older_runs_stay_the_same(arm):
    older, failing = arm("rlvr"), arm("rlvr", task=replace(TASK, overtime="fail"))
    assert "overtime" not in older.identity()["task"]
    assert differences(older.identity(), failing.identity()) == ['task.overtime: null -> "fail"']
    with pytest.raises(ValueError, match=r"^task\.overtime is wrong or fail, got 'skip'$"):
        replace(TASK, overtime="skip")


def slow(run):
    """Responses that math-verify would work on for ever, in the helper process of tasks with checks."""
    from opd_ops.tasks.task import Check

    forever = Check(function="opd_ops.tasks.mathematics:verify_math", response="9**9**9**9", arguments={"gold": "1"})
    run.task.instant, run.task.seconds = False, 0.3
    run.task.task.check = lambda problem, response: forever


def test_a_dead_teacher_is_one_line(arm, seeded, monkeypatch):
    from pipelines.runs.cluster.worker_failures import WorkerFailed

    def dead(self, *a):
        raise WorkerFailed("a teacher actor died 4 times at the same call, which was repeated 3 times (gone)")

    store = seeded("pre", "teacher")
    with monkeypatch.context() as patch:
        run = TrainingRun(store, arm("opd"), 0, {})
        run.work(2)
        patch.setattr(LocalTeacher, "score", dead)
        with pytest.raises(StepFailed, match=r"teacher actor died 4 times .* the state after step 2 is kept"):
            run.work(5)
    assert TrainingRun(store, arm("opd"), 0, {}).trainer.step == 2


def test_a_folder_that_is_no_model_is_named(arm, store, tmp_path):
    (tmp_path / "empty").mkdir()
    recipe = arm("rlvr", start=Weights(ref=str(tmp_path / "empty")))
    with pytest.raises(ValueError, match=r"no model could be loaded from .*empty"):
        TrainingRun(store, recipe, 0, {})


def test_a_replay_of_a_run_without_rollouts_names_the_step(arm, seeded):
    from opd_ops.recipe import Replay

    store = seeded("pre", "teacher", "opd")
    source = Trajectory(store, "mini.opd", 0)
    store.remove(f"{source.prefix}/rollouts")
    teacher = FinalOf(recipe="mini.teacher", seed=0)
    rollout = Rollout(prompts=2, samples=2, max_new_tokens=6, source=Replay(recipe="mini.opd", seed=0))
    run = TrainingRun(store, arm("opd", arm="again", objective=Opd(teacher=teacher), rollout=rollout), 0, {})
    with pytest.raises(StepFailed, match="holds no rollouts of step 1"):
        run.work(1)


def test_resume_facts_are_plain_json(arm, seeded):
    store = seeded("pre")
    run = TrainingRun(store, arm("rlvr"), 0, {})
    run.work(2)
    assert isinstance(store, Store)
    facts = Trajectory(store, "mini.rlvr", 0).load_resume()[2]
    assert set(facts) == {"trainer", "tables", "parent", "timing"}
    assert facts["trainer"]["rollout_version"] in (1, 2)
    assert json.loads(json.dumps(facts)) == facts


def test_a_run_that_fills_its_disk_goes_on_when_there_is_room(arm, grown, store, contents, monkeypatch):
    """Room, none, room again, in the training and in the measuring: one line each time, and the same end."""
    disk, recipe = Disk().install(monkeypatch), arm("pre")
    whole = {key: data for key, data in contents(grown).items() if "mini.pre" in key}
    for share in (0.05, 0.3, 0.6):
        disk.room = int(share * sum(map(len, whole.values())))
        with pytest.raises((StepFailed, Unwritable)) as caught:
            train(store, recipe, 0, serial=True)
        message = str(caught.value)
        assert "\n" not in message and "No space left on device; make room there" in message
        assert f"{store.uri}/runs/mini.pre/seed-0/" in message or f"{store.uri}/lake/" in message
    disk.room = None
    train(store, recipe, 0, serial=True)
    found = contents(store)
    rollouts = lambda objects: {key: data for key, data in objects.items() if "/rollouts/" not in key}
    assert rollouts(found) == rollouts(whole)
    disk.room = 5000
    with pytest.raises(Unwritable, match="No space left on device; make room there"):
        measure_run(store, recipe, 0, CUTS, serial=True)
    assert not is_measured(store, recipe, 0, CUTS)
    disk.room = None
    assert measure_run(store, recipe, 0, CUTS, serial=True) == []
    assert is_measured(store, recipe, 0, CUTS)


def test_clocks_that_jump_change_no_byte(arm, grown, store, contents, monkeypatch):
    """The date is another year at every look, and files are dated anywhere between 1980 and 2100."""
    chance, recipe = random.Random(0), arm("pre")
    monkeypatch.setattr(time, "time", lambda: chance.uniform(3e8, 4e9))

    def dated():
        for key in store.find(""):
            os.utime(store.path(key), (chance.uniform(3e8, 4e9),) * 2)

    state = train_until(store, recipe, steps=4)
    assert 0 <= state.seconds < 600
    dated()
    train(store, recipe, 0, serial=True)
    assert contents(store) == {key: data for key, data in contents(grown).items() if "mini.pre" in key}
    assert measure_run(store, recipe, 0, CUTS, serial=True) == []
    dated()
    assert complete(store, recipe, 0) and is_measured(store, recipe, 0, CUTS)
    timing = lake.read_partition(store, "timing", recipe=recipe.name, seed=0)
    assert timing is not None and timing["wall_s"].min() >= 0 and timing["wall_s"].max() < 600


def train_until(store, recipe, steps):
    """A run that stops after so many steps, and is to go on."""
    return TrainingRun(store, recipe, 0, provenance()).work(steps)
