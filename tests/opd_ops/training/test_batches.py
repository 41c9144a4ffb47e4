import numpy as np
import pytest
import torch

from opd_ops.recipe import Opd, Rollout, Weights
from opd_ops.rollout.rollout import Sampled
from opd_ops.tasks.chains import Chains
from opd_ops.tasks.task import Problem
from opd_ops.training import batches
from opd_ops.training.batches import collate, demonstrations, reward, sample

PAD, EOS = 0, 2


def test_prompts_are_padded_left_and_responses_right():
    batch = collate([[1, 5], [1, 3, 4, 6]], [[7, 6, 2], [2]], PAD)
    assert batch.ids.tolist() == [[0, 0, 1, 5, 7, 6, 2], [1, 3, 4, 6, 2, 0, 0]]
    assert batch.attention.tolist() == [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.targets.tolist() == [[7, 6, 2], [2, 0, 0]]
    assert batch.width == 3


def test_positions_count_the_tokens_of_each_row_from_zero():
    batch = collate([[1, 5], [1, 3, 4, 6]], [[7, 6, 2], [2]], PAD)
    for row in range(2):
        kept = batch.attention[row] == 1
        assert batch.positions[row][kept].tolist() == list(range(int(kept.sum())))
    assert (batch.positions >= 0).all()


def test_a_pad_token_that_means_something_is_still_attended_to():
    batch = collate([[PAD, 5], [1]], [[PAD, EOS], [EOS]], PAD)
    assert batch.attention.tolist() == [[1, 1, 1, 1], [0, 1, 1, 0]]
    assert batch.mask.tolist() == [[1, 1], [1, 0]]


def test_columns_travel_with_their_rows():
    rewards, groups = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0, 0, 1])
    batch = collate([[1]] * 3, [[3, 2], [2], [4, 4, 2]], PAD, rewards=rewards, groups=groups)
    part = batch.rows(1, 3)
    assert part.width == batch.width == 3
    assert part.rewards.tolist() == [1.0, 0.5] and part.groups.tolist() == [0, 1]
    for name in ("ids", "attention", "positions", "mask", "targets"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[1:3])


def equal(one, other):
    return torch.equal(one.ids, other.ids) and torch.equal(one.mask, other.mask)


def test_demonstrations_are_keyed_by_seed_and_step_alone():
    task = Chains(operations=2)
    first = demonstrations(task, "noisy", 8, seed=3, step=5)
    np.random.seed(0)
    torch.manual_seed(0)
    assert equal(first, demonstrations(Chains(operations=2), "noisy", 8, seed=3, step=5))
    for seed, step in ((3, 6), (4, 5), (5, 3)):
        assert not equal(first, demonstrations(task, "noisy", 8, seed, step))


def test_a_demonstration_batch_is_the_tasks_own_stream(task):
    batch = demonstrations(task, "any", 6, seed=3, step=5)
    pairs = task.demonstrations("any", 6, np.random.default_rng((3, batches.DEMONSTRATIONS, 5)))
    for row, (prompt, response) in enumerate(pairs):
        assert batch.ids[row][batch.attention[row] == 1].tolist() == [*prompt, *response]
        assert batch.targets[row][batch.mask[row] == 1].tolist() == response


@pytest.mark.parametrize("step", [1, 2])
def test_arms_of_a_seed_see_the_same_prompts(step, trainer):
    shape = {"rollout": Rollout(prompts=4, samples=2, max_new_tokens=4)}
    arms = [
        trainer("opd", **shape),
        trainer("opd-privileged", arm="another-name", **shape),
        trainer("rlvr", **shape),
        trainer(Opd(teacher=Weights(ref="x")), teacher=2, **shape),
    ]
    drawn = [arm._draw(step).batch for arm in arms]
    # One start, so the responses agree too.
    assert all(equal(batch, drawn[0]) for batch in drawn[1:])
    assert not equal(drawn[0], trainer("opd", seed=1, **shape)._draw(step).batch)
    assert not equal(drawn[0], arms[0]._draw(step + 1).batch)


def test_streams_do_not_share_random_numbers():
    streams = (batches.PROMPTS, batches.DEMONSTRATIONS, batches.HELD_OUT)
    draws = {np.random.default_rng((0, stream, 1)).random() for stream in streams}
    assert len(draws) == 3


def test_samples_are_grouped_by_problem_and_differ(model, task):
    problems = task.problems("train", 3, np.random.default_rng(0))
    spec = Rollout(prompts=3, samples=8, max_new_tokens=8)
    found = sample(model, task, problems, spec, seed=0, step=1)
    assert len(found) == 24
    for p, problem in enumerate(problems):
        group = found[8 * p : 8 * p + 8]
        assert len({tuple(rollout.tokens) for rollout in group}) > 3
        # The draws are addressed by the problem's place, so only the first can be had alone.
        alone = sample(model, task, [problem], spec, seed=0, step=1)
        assert ([x.tokens for x in alone] == [x.tokens for x in group]) == (p == 0)


def test_a_greedy_sample_needs_no_draws_and_repeats(model, task):
    problems = task.problems("train", 3, np.random.default_rng(0))
    spec = Rollout(prompts=3, samples=2, max_new_tokens=8, temperature=0.0)
    one, other = (sample(model, task, problems, spec, seed, 1) for seed in (0, 1))
    assert one == other
    assert all(one[2 * p] == one[2 * p + 1] for p in range(3))


def test_the_reward_is_the_verifiers_without_the_end_token_and_none_when_truncated():
    seen = []

    class Task:
        def verify(self, problem, response):
            seen.append(response)
            return 0.5

    problem = Problem(prompt=[1], answer="")
    ended = Sampled(tokens=[3, 4, EOS], logprobs=[0.0] * 3, truncated=False)
    assert reward(Task(), problem, ended) == 0.5
    assert seen == [[3, 4]]
    assert reward(Task(), problem, Sampled(tokens=[3, 4], logprobs=[0.0] * 2, truncated=True)) == 0.0
    assert len(seen) == 1
