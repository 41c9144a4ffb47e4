from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.rollout import hf
from opd_ops.rollout.rollout import uniforms
from opd_ops.training.batches import collate
from opd_ops.training.loop import sequence_logprobs

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 8
PROMPTS = [[BOS], [BOS, 3, 4, 5, 6, 7, 3], [BOS, 7, 7], [BOS, 5, 3, 4], [BOS, 4], [BOS, 6, 6, 6, 6]]


def generate(model, prompts, draws=None, temperature=None, count=12):
    if temperature is None:
        temperature = 0.0 if draws is None else 1.0
    return hf.generate(model, prompts, draws, max_new_tokens=count, temperature=temperature, eos=EOS, pad=PAD)


def table(rows, count=12, seed=0):
    return np.stack([uniforms(seed, 1, row, 0, count) for row in range(rows)])


def next_logits(model, prefix):
    """Uncached, unpadded, with the model's own mask and positions."""
    with torch.no_grad():
        return model(torch.tensor([prefix]), use_cache=False).logits[0, -1]


class Script:
    """A model whose next-token logits are a fixed function of the last token."""

    def __init__(self, model, logits):
        self.config, self.logits = model.config, torch.as_tensor(logits)

    def __call__(self, *, input_ids, logits_to_keep, **_):
        return SimpleNamespace(logits=self.logits[input_ids[:, -logits_to_keep:]])


def test_greedy_tokens_equal_the_uncached_forward_token_by_token(model):
    for prompt, found in zip(PROMPTS, generate(model, PROMPTS), strict=True):
        prefix = list(prompt)
        for token, logprob in zip(found.tokens, found.logprobs, strict=True):
            logits = next_logits(model, prefix)
            assert token == int(logits.argmax())
            # Another order of fp32 sums over 32 channels.
            assert logprob == pytest.approx(float(torch.log_softmax(logits, -1)[token]), abs=1e-5)
            prefix.append(token)


def test_sampled_tokens_equal_an_uncached_inverse_cdf_token_by_token(model):
    draws = table(len(PROMPTS))
    for row, found in enumerate(generate(model, PROMPTS, draws, temperature=1.3)):
        prefix = list(PROMPTS[row])
        for t, (token, logprob) in enumerate(zip(found.tokens, found.logprobs, strict=True)):
            logits = next_logits(model, prefix)
            cumulative = torch.softmax(logits.double() / 1.3, -1).cumsum(-1).numpy()
            assert token == int(np.argmax(cumulative > draws[row, t]))
            assert logprob == pytest.approx(float(torch.log_softmax(logits, -1)[token]), abs=1e-5)
            prefix.append(token)


def test_logprobs_equal_the_training_forward(model):
    found = generate(model, PROMPTS, table(len(PROMPTS)))
    batch = collate(PROMPTS, [x.tokens for x in found], PAD)
    reference = sequence_logprobs(model, batch)
    for row, x in enumerate(found):
        assert x.logprobs == pytest.approx(reference[row, : len(x.tokens)].tolist(), abs=1e-5)


@settings(max_examples=20)
@given(order=st.permutations(range(len(PROMPTS))), size=st.integers(1, len(PROMPTS)), seed=st.integers(0, 99))
def test_a_row_does_not_depend_on_its_batch(order, size, seed, weights_once):
    rows, draws = order[:size], table(len(PROMPTS), seed=seed)
    together = generate(weights_once, [PROMPTS[row] for row in rows], draws[rows])
    for row, found in zip(rows, together, strict=True):
        alone = generate(weights_once, [PROMPTS[row]], draws[row : row + 1])[0]
        assert (found.tokens, found.truncated) == (alone.tokens, alone.truncated)
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


@pytest.fixture(scope="module")
def weights_once():
    from opd_ops.models import assemble, configuration, initialise
    from opd_ops.recipe import Architecture

    config = configuration(
        Architecture(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, initializer_range=0.3,
        ),
        pad=PAD, bos=BOS, eos=EOS,
    )  # fmt: skip
    return assemble(config, initialise(config, 3), torch.float32)


def test_a_response_ends_with_its_first_eos_or_is_truncated(model):
    prompts = PROMPTS * 20
    found = generate(model, prompts, table(len(prompts)), count=6)
    assert len({len(x.tokens) for x in found}) > 3
    for x in found:
        assert EOS not in x.tokens[:-1] and len(x.tokens) == len(x.logprobs)
        assert x.truncated == (x.tokens[-1] != EOS)
        assert len(x.tokens) == 6 or not x.truncated
    assert 0 < sum(x.truncated for x in found) < len(found)


def test_finished_rows_receive_pad_while_others_go_on(model):
    seen = []
    chain = torch.full((VOCABULARY, VOCABULARY), -50.0)
    for token, following in {BOS: 5, 5: EOS, 3: 4, 4: 6, 6: 7, 7: 3, EOS: 5, PAD: 5}.items():
        chain[token, following] = 50.0
    script = Script(model, chain)

    def watching(*, input_ids, **rest):
        seen.append(input_ids[:, -1].tolist())
        return script(input_ids=input_ids, **rest)

    watching.config = model.config
    found = generate(watching, [[BOS], [BOS, 3]], count=5)
    assert [x.tokens for x in found] == [[5, EOS], [4, 6, 7, 3, 4]]
    assert [x.truncated for x in found] == [False, True]
    assert seen == [[BOS, 3], [5, 4], [EOS, 6], [PAD, 7], [PAD, 3]]


def test_generation_stops_when_every_row_has_ended(model):
    chain = torch.zeros(VOCABULARY, VOCABULARY)
    chain[:, EOS] = 50.0
    calls = []
    script = Script(model, chain)

    def counting(**arguments):
        calls.append(1)
        return script(**arguments)

    counting.config = model.config
    assert [x.tokens for x in generate(counting, [[BOS], [BOS, 3]])] == [[EOS], [EOS]]
    assert len(calls) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_on_an_even_grid_of_uniforms_are_the_softmax_at_the_temperature(model, temperature):
    logits = torch.linspace(-2, 3, VOCABULARY).expand(VOCABULARY, -1)
    n = 1000
    grid = ((np.arange(n) + 0.5) / n)[:, None]
    found = generate(Script(model, logits), [[BOS]] * n, grid, temperature, count=1)
    counts = np.bincount([x.tokens[0] for x in found], minlength=VOCABULARY)
    p = torch.softmax(logits[0].double() / temperature, -1).numpy()
    # An interval of length p holds n p grid points up to one at each end.
    assert (abs(counts - n * p) <= 1).all()
    unscaled = torch.log_softmax(logits[0], -1)
    assert all(x.logprobs[0] == float(unscaled[x.tokens[0]]) for x in found)


def test_the_boundaries_of_the_inverse_cdf_are_half_open(model):
    script = Script(model, torch.tensor([0.25, 0.25, 0.125, 0.125, 0.25, 0.0, 0.0, 0.0]).log().expand(VOCABULARY, -1))
    edges = [0.0, 0.3, 0.55, 0.7, 0.8]
    found = generate(script, [[BOS]] * 5, np.array(edges)[:, None], count=1)
    assert [x.tokens[0] for x in found] == [0, 1, 2, 3, 4]


@given(st.lists(st.one_of(st.floats(-40, 40), st.just(-np.inf)), min_size=VOCABULARY, max_size=VOCABULARY))
def test_extreme_uniforms_stay_in_the_vocabulary_and_on_possible_tokens(weights_once, logits):
    if max(logits) == -np.inf:
        return
    script = Script(weights_once, torch.tensor(logits).expand(VOCABULARY, -1))
    ends = np.array([[0.0], [np.nextafter(0.0, 1.0)], [0.5], [np.nextafter(1.0, 0.0)]])
    for x in generate(script, [[BOS]] * 4, ends, count=1):
        assert 0 <= x.tokens[0] < VOCABULARY
        assert logits[x.tokens[0]] > -np.inf


def test_a_low_temperature_draws_the_greedy_token(model):
    greedy = generate(model, PROMPTS)
    cold = generate(model, PROMPTS, table(len(PROMPTS)), temperature=1e-4)
    assert [x.tokens for x in greedy] == [x.tokens for x in cold]


def test_uniforms_are_keyed_by_their_address_alone():
    first = uniforms(3, 5, 7, 1, 8)
    assert first.dtype == np.float64 and ((first >= 0) & (first < 1)).all()
    assert np.array_equal(first, uniforms(3, 5, 7, 1, 8))
    assert np.array_equal(first[:4], uniforms(3, 5, 7, 1, 4)), "a longer limit continues the same draws"
    for other in ((4, 5, 7, 1), (3, 6, 7, 1), (3, 5, 8, 1), (3, 5, 7, 2), (5, 3, 7, 1), (3, 5, 1, 7)):
        assert not np.array_equal(first, uniforms(*other, 8))
