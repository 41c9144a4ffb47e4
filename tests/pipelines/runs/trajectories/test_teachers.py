"""Teacher actors say what a teacher in this process says, bit for bit, and may be killed."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from opd_ops.batch import Batch
from opd_ops.models import assemble
from opd_ops.recipe import Fresh
from opd_ops.teacher.local import LocalTeacher
from opd_ops.teacher.scores import Support
from pipelines.runs.cluster.attach import use_one_thread
from pipelines.runs.cluster.worker_failures import WorkerFailed
from pipelines.runs.resources.placement import Spot
from pipelines.runs.trajectories import starts, teachers
from pipelines.runs.trajectories.teachers import AHEAD, RemoteTeacher, TeacherSpec, question_key
from pipelines.store.objects import Store
from tests.pipelines.runs.mini import ARCHITECTURE, TASK

START = Fresh(architecture=ARCHITECTURE)
VOCABULARY = 30  # the last two columns are padding
FULL = Support(kind="full")
SUPPORTS = [FULL, Support(kind="full", temperature=0.7), Support(kind="top", k=3), Support(kind="sampled")]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return TeacherSpec(
        store=Store(f"file://{tmp_path_factory.mktemp('store')}"), start=START, seed=3, task=TASK, vocabulary=30
    )


@pytest.fixture(scope="module")
def remote(workers, spec):
    """Two actors."""
    use_one_thread()
    teacher = RemoteTeacher(spec, [Spot(), Spot()])
    yield teacher
    teacher.close()


@pytest.fixture(scope="module")
def local(spec):
    found = starts.load(spec.store, spec.start, spec.seed, spec.task)
    return LocalTeacher(assemble(found.config, found.weights, torch.float32), found.digest, VOCABULARY)


def part(seed, rows=3, prompt=4, width=5):
    """A micro-batch of random tokens, ragged on both sides."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, prompt + width), generator=generator)
    attention = torch.ones_like(ids)
    mask = torch.ones(rows, width)
    for row in range(rows):
        attention[row, : row % prompt] = 0
        mask[row, width - row % width :] = 0
        attention[row, prompt + width - row % width :] = 0
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    rewards = torch.rand(rows, generator=generator)
    return Batch(
        ids=ids, attention=attention, positions=positions, width=width, mask=mask, rewards=rewards, behaviour=mask
    )


def same(one, other, mask):
    """Equal scores; ids where the mask is 0 mean nothing, and are 0 in what travelled."""
    for name in ("sampled", "entropy", "full", "top"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)
    if one.ids is not None or other.ids is not None:
        assert torch.equal(one.ids[mask != 0], other.ids[mask != 0])
        assert one.ids.dtype == other.ids.dtype == torch.int64
    return True


def changed_questions():
    """Everything that a score depends on, changed in turn."""
    base = part(0)
    yield "kind", (base, Support(kind="sampled"))
    yield "k", (base, Support(kind="top", k=2))
    yield "k + 1", (base, Support(kind="top", k=3))
    yield "temperature", (base, Support(kind="full", temperature=0.7))
    for name in ("ids", "attention", "positions"):
        other = getattr(base, name).clone()
        other[0, 0] += 1
        yield name, (replace(base, **{name: other}), FULL)
    yield "mask", (replace(base, mask=torch.ones(3, 5)), FULL)
    yield "width", (replace(base, width=4, mask=base.mask[:, :4]), FULL)
    yield "fewer rows", (base.rows(0, 2), FULL)
    yield "reshaped", (replace(base, ids=base.ids.reshape(9, 3)), FULL)
    candidates = torch.zeros(3, 5, 2, dtype=torch.int64)
    yield "candidates", (base, Support(kind="candidates", k=2), candidates)
    yield "other candidates", (base, Support(kind="candidates", k=2), candidates + 1)


def test_the_key_of_a_question_has_all_that_a_score_depends_on_and_no_more():
    keys = {"base": question_key(part(0), FULL)}
    keys |= {name: question_key(*question) for name, question in changed_questions()}
    assert len(set(keys.values())) == len(keys)
    irrelevant = replace(part(0), rewards=None, behaviour=None, mask=part(0).mask.to(torch.int64))
    assert question_key(irrelevant, FULL) == keys["base"]


def test_the_teacher_is_known_by_what_the_actors_loaded(remote, local):
    assert (remote.digest, remote.vocabulary) == (local.digest, local.vocabulary)
    assert len(set(remote.pids)) == 2 and os.getpid() not in remote.pids


@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: f"{s.kind}-{s.temperature:g}")
@pytest.mark.parametrize("ahead", [True, False])
def test_scores_are_those_of_one_teacher_bit_for_bit(remote, local, support, ahead):
    parts = [part(seed, rows=1 + seed % 3) for seed in range(5)]
    if ahead:
        remote.prefetch(parts, support)
    for each in parts:
        assert same(remote.score(each, support), local.score(each, support), each.mask)


def test_candidates_come_with_the_question(remote, local):
    asked, support = part(1), Support(kind="candidates", k=4)
    candidates = torch.randint(0, VOCABULARY, (3, 5, 4), generator=torch.Generator().manual_seed(0))
    submitted = remote.pool._dealt
    remote.prefetch([asked], support)
    assert remote.pool._dealt == submitted, "nothing can be scored ahead"
    found = remote.score(asked, support, candidates)
    assert same(found, local.score(asked, support, candidates), asked.mask)
    assert torch.equal(found.ids[asked.mask != 0], candidates[asked.mask != 0])


def test_every_micro_batch_is_read_once_and_only_so_many_are_ahead(remote, local, monkeypatch):
    monkeypatch.setattr(teachers, "AHEAD", 2)
    parts = [part(seed) for seed in range(9)]
    submitted = remote.pool._dealt
    remote.prefetch(parts, FULL)
    assert remote.pool._dealt - submitted == 4
    for done, each in enumerate(parts, 1):
        assert same(remote.score(each, FULL), local.score(each, FULL), each.mask)
        assert remote.pool._dealt - submitted == min(9, 4 + done)
    assert all(not member.calls for member in remote.pool.members)


def test_questions_in_another_order_or_never_announced_are_answered(remote, local):
    parts = [part(seed) for seed in range(4 * AHEAD)]
    remote.prefetch(parts, FULL)
    for each in [*reversed(parts), part(99), parts[0]]:
        assert same(remote.score(each, FULL), local.score(each, FULL), each.mask)
    twice = [part(1), part(1)]
    remote.prefetch(twice, FULL)
    for each in twice:
        assert same(remote.score(each, FULL), local.score(each, FULL), each.mask)


def test_a_hint_that_is_not_followed_is_dropped_with_the_next(remote, local):
    remote.prefetch([part(seed) for seed in range(6)], FULL)
    remote.prefetch([part(7)], Support(kind="sampled"))
    assert sum(len(member.calls) for member in remote.pool.members) == 1
    assert remote.score(part(7), Support(kind="sampled")).full is None
    assert same(remote.score(part(0), FULL), local.score(part(0), FULL), part(0).mask)


def test_killed_teachers_are_replaced_and_read_again(remote, local):
    remote.prefetch([part(0)], FULL)
    remote.score(part(0), FULL)
    parts = [part(seed) for seed in range(6)]
    replaced = remote.pool.replaced
    for pid in remote.pool.call_each("pid"):
        os.kill(pid, signal.SIGKILL)
    remote.prefetch(parts, FULL)
    for each in parts:
        assert same(remote.score(each, FULL), local.score(each, FULL), each.mask)
    assert remote.pool.replaced == replaced + 2
    assert len(remote.pids) >= 4


def test_a_teacher_that_sleeps_wakes_at_the_next_question(remote, local):
    remote.sleep()
    assert same(remote.score(part(1), FULL), local.score(part(1), FULL), part(1).mask)


def test_a_teacher_that_cannot_be_had_is_refused_as_here(workers, spec):
    from opd_ops.recipe import FinalOf

    absent = replace(spec, start=FinalOf(recipe="mini.absent", seed=0))
    with pytest.raises(ValueError, match=r"runs/mini.absent/seed-0 is not complete.*train it first"):
        RemoteTeacher(absent, [Spot()])


def test_a_teacher_that_always_dies_ends_in_one_line(remote, monkeypatch):
    monkeypatch.setattr(remote.pool, "retries", 0)
    os.kill(remote.pool.call_first("pid"), signal.SIGKILL)
    with pytest.raises(WorkerFailed, match=r"^a teacher actor died 1 times at the same call") as caught:
        for seed in range(2):
            remote.score(part(seed), FULL)
    assert "\n" not in str(caught.value)
