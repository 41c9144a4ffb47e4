"""TRL beside ours: what its losses are, by a reference row by row; its jobs without it.

Where the environment is not installed, which a full bench does, the tests that need TRL are skipped.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.bench.environment import Absent
from tests.bench.trl import driver
from tests.bench.trl.job import Job

PROMPTS = [[1, 5, 9], [1, 7, 4, 11, 3], [1, 30]]
GROUP = 2
RESPONSES = [
    [4, 8, 2],
    [17, 2],
    [5, 6, 7, 8, 9, 10],
    [2],
    [31, 0, 12, 2],
    [3, 3, 3, 3, 2],
]  # one truncated, one holds pad
TEMPERATURE = 0.7
ROOM = 8  # max_new_tokens


def installed() -> bool:
    try:
        return driver.TRL.interpreter().exists()
    except Absent:
        return False


needs_trl = pytest.mark.skipif(not installed(), reason="TRL is not installed: `make bench` installs it into .venv-trl")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a student and a teacher with sharp, different distributions."""
    folders = []
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, max_position_embeddings=64, tie_word_embeddings=True,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.15,
        )  # fmt: skip
        model = Qwen3ForCausalLM(config)
        folders.append(tmp_path_factory.mktemp("models") / name)
        model.save_pretrained(folders[-1])
    return folders


def opd(models, **changes) -> Job:
    known = dict(method="opd", student=models[0], teacher=models[1], prompts=[p for p in PROMPTS for _ in range(GROUP)])
    return Job(**known | dict(max_new_tokens=ROOM, temperature=TEMPERATURE, warmup=1, steps=2) | changes)


def grpo(models, **changes) -> Job:
    known = dict(method="grpo", student=models[0], prompts=PROMPTS, group=GROUP, max_new_tokens=ROOM)
    return Job(**known | dict(temperature=TEMPERATURE, warmup=1, steps=2) | changes)


def rows():
    """Prompt and response of every row; nothing is padded here."""
    return zip([p for p in PROMPTS for _ in range(GROUP)], RESPONSES, strict=True)


def logprobs(model, prompt, response) -> Tensor:
    """[R, V] at the temperature, of the positions that predict the response, EOS included."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / TEMPERATURE, dim=-1)


def agree(found: driver.Gradient, model, loss: Tensor) -> None:
    """Loss and every gradient, in f32 over other shapes and another order of sums: 1e-4 of the largest entry.

    A loss is the difference of log partition values of some 3 nats, so it is right to 1e-6 whatever its size.
    """
    loss.backward()
    mine = {name: weight.grad for name, weight in model.named_parameters()}
    assert set(found.tensors) == set(mine) and "lm_head.weight" not in mine
    assert found.loss == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in mine.values()))
    assert norm > 0.1 and found.norm == pytest.approx(norm, rel=1e-4)
    for name, gradient in mine.items():
        assert torch.allclose(found.tensors[name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max())), name


@needs_trl
def test_distillation_is_the_reverse_kl_per_response_token(models):
    found = driver.evaluate(opd(models, responses=RESPONSES))
    student, teacher = (Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in models)
    total = torch.tensor(0.0)
    for prompt, response in rows():
        mine, theirs = logprobs(student, prompt, response), logprobs(teacher, prompt, response).detach()
        total = total + (mine.exp() * (mine - theirs)).sum()
    agree(found, student, total / sum(map(len, RESPONSES)))
    assert found.advantages is None and found.versions["trl"] == "1.16.0"


@needs_trl
def test_group_advantages_have_the_sample_deviation(models):
    rewards = [1.0, 0.0, 0.5, 0.5, 0.0, 0.25]
    found = driver.evaluate(grpo(models, responses=RESPONSES, rewards=rewards))
    group = torch.tensor(rewards).view(-1, GROUP)
    advantage = ((group - group.mean(1, keepdim=True)) / (group.std(1, keepdim=True) + 1e-4)).flatten()
    assert found.advantages == pytest.approx(advantage.tolist(), rel=1e-6)
    student = Qwen3ForCausalLM.from_pretrained(models[0], dtype=torch.float32)
    total = torch.tensor(0.0)
    for (prompt, response), weight in zip(rows(), advantage, strict=True):
        chosen = logprobs(student, prompt, response).gather(1, torch.tensor(response)[:, None])
        total = total - weight * (chosen - chosen.detach()).exp().sum() / (len(RESPONSES) * len(response))
    agree(found, student, total)


@needs_trl
@pytest.mark.parametrize("make", [opd, grpo])
def test_steps_are_measured_one_by_one(models, make):
    found = driver.measure(make(models))
    assert len(found.seconds) == len(found.tokens) == len(found.longest) == 2
    assert set(found.parts) == {*driver.PARTS, "teacher"}
    for step, whole in enumerate(found.seconds):
        parts = {part: seconds[step] for part, seconds in found.parts.items()}
        assert all(parts[part] > 0 for part in driver.PARTS)
        assert sum(parts[part] for part in driver.PARTS) < whole
        assert (0 < parts["teacher"] < parts["forward"]) if make is opd else parts["teacher"] == 0
    assert 0 < found.outside < 1 and found.median > 0
    for tokens, longest in zip(found.tokens, found.longest, strict=True):
        assert 0 < longest <= ROOM and 6 <= tokens <= 6 * longest


def test_without_the_environment_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "TRL", dataclasses.replace(driver.TRL, folder=tmp_path))
    with pytest.raises(Absent, match="not installed"):
        driver.measure(grpo((Path("student"), None)))


def test_a_median_and_a_share_are_over_steps():
    parts = {"generate": [1.0, 2.0, 3.0], "forward": [1.0] * 3, "backward": [1.0] * 3, "optimizer": [0.0] * 3}
    found = driver.Steps(
        seconds=[4.0, 5.0, 8.0], parts=parts | {"teacher": [0.5] * 3}, tokens=[1] * 3, longest=[1] * 3, versions={}
    )
    assert found.median == 5.0 and found.outside == pytest.approx(0.25)
