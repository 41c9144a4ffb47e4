import numpy as np
import torch

from opd_ops.tasks.chains import Chains
from opd_ops.training import batches
from opd_ops.training.batches import collate, demonstrations

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
    drawn = [[-1.0, -2.0], [-3.0], [-4.0, -5.0, -6.0]]
    batch = collate(
        [[1]] * 3, [[3, 2], [2], [4, 4, 2]], PAD, behaviour=drawn, rewards=[0.0, 1.0, 0.5], groups=[0, 0, 1]
    )
    part = batch.rows(1, 3)
    assert part.behaviour.tolist() == [[-3.0, 0.0, 0.0], [-4.0, -5.0, -6.0]]
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


def test_streams_do_not_share_random_numbers():
    streams = (batches.PROMPTS, batches.DEMONSTRATIONS, batches.HELD_OUT, batches.SELECTION)
    draws = {np.random.default_rng((0, stream, 1)).random() for stream in streams}
    assert len(draws) == 4


def test_a_response_left_out_is_read_but_not_trained_on():
    batch = collate([[1], [1]], [[3, 2], [4, 2]], PAD, kept=[True, False], behaviour=[[-1.0, -1.0], [-2.0, -2.0]])
    assert batch.mask.tolist() == [[1, 1], [0, 0]]
    assert batch.behaviour.tolist() == [[-1, -1], [0, 0]]
    assert batch.attention.tolist() == [[1, 1, 1], [1, 1, 1]]
