import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from opd_ops import recipe
from opd_ops.tasks.registry import build
from opd_ops.tasks.sums import Sums
from opd_ops.tasks.task import Problem

CHARACTERS = "0123456789 +=\n"


def rng(seed=0):
    return np.random.default_rng(seed)


def tokenizer(folder, characters=CHARACTERS, special=("<pad>", "<unk>"), **names):
    """A character-level tokenizer in the files of a Hugging Face folder."""
    vocabulary = {piece: i for i, piece in enumerate((*special, *characters))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **names).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task(tmp_path):
    return Sums(tokenizer(tmp_path, pad_token="<pad>"))


def test_the_newline_ends_an_answer(task):
    assert task.tokenizer.decode([task.eos]) == "\n"
    assert task.pad == task.tokenizer.pad_token_id == 0


def test_without_a_pad_token_the_newline_pads(tmp_path):
    task = Sums(tokenizer(tmp_path))
    assert task.pad == task.eos


def test_a_tokenizer_without_a_single_newline_token_is_refused(tmp_path):
    folder = tokenizer(tmp_path, special=("<unk>",))
    inner = Tokenizer.from_file(f"{folder}/tokenizer.json")
    inner.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    inner.save(f"{folder}/tokenizer.json")
    with pytest.raises(ValueError, match="no single newline token"):
        Sums(folder)


def test_a_prompt_shows_three_solved_lines_and_the_privileged_one_its_own(task):
    for problem in task.problems("train", 20, rng()):
        lines = task.tokenizer.decode(problem.prompt).split("\n")
        told = task.tokenizer.decode(problem.privileged).split("\n")
        assert lines[:3] == told[:3] == ["23 + 45 = 68", "61 + 17 = 78", "38 + 54 = 92"]
        assert len(lines) == 4 and lines[3] == told[4]
        a, b = lines[3].removesuffix(" =").split(" + ")
        assert problem.answer == str(int(a) + int(b))
        assert told[3] == f"{lines[3]} {problem.answer}"
        assert lines[3] not in (line.split("=")[0] + "=" for line in lines[:3])


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_held_out_and_training_problems_are_distinct_disjoint_and_in_range(tmp_path, digits):
    task = Sums(tokenizer(tmp_path), digits=digits)
    count = 8 if digits == 1 else 200
    found = {split: [tuple(p.prompt) for p in task.problems(split, count, rng())] for split in ("train", "held_out")}
    assert all(len(set(prompts)) == count for prompts in found.values())
    assert not set(found["train"]) & set(found["held_out"])
    for prompt in found["train"]:
        a, b = task.tokenizer.decode(prompt).split("\n")[-1].removesuffix(" =").split(" + ")
        assert max(int(a), int(b)) < 10**digits


@pytest.mark.parametrize(
    "text, reward",
    [(" 68", 1), ("68", 1), (" 68 ", 1), ("68\n", 1), ("68\n9", 1), ("", 0), (" ", 0), (" 67", 0), (" 068", 0),
     (" 6 8", 0), (" 68 9", 0), ("= 68", 0), ("\n68", 0), (" 680", 0), ("+68", 0), ("68.0", 0)],
)  # fmt: skip
def test_only_the_exact_integer_before_the_newline_earns_the_reward(task, text, reward):
    response = task.tokenizer.encode(text, add_special_tokens=False)
    assert task.verify(Problem(prompt=[], answer="68"), response) == reward


def test_special_tokens_beside_the_answer_earn_nothing(task):
    response = task.tokenizer.encode("68", add_special_tokens=False)
    assert task.verify(Problem(prompt=[], answer="68"), [*response, 1]) == 0.0


def test_clean_demonstrations_verify_and_end_in_eos(task):
    pairs = task.demonstrations("clean", 50, rng())
    problems = task.problems("train", 50, rng())
    for (prompt, response), problem in zip(pairs, problems, strict=True):
        assert prompt == problem.prompt
        assert response[-1] == task.eos and task.eos not in response[:-1]
        assert task.verify(problem, response[:-1]) == 1.0


def test_everything_repeats_by_seed(task):
    assert task.demonstrations("clean", 9, rng(3)) == task.demonstrations("clean", 9, rng(3))
    assert task.demonstrations("clean", 9, rng(3)) != task.demonstrations("clean", 9, rng(4))
    assert task.problems("held_out", 9, rng(3)) == task.problems("held_out", 9, rng(3))


def test_unknown_streams_name_the_known_one(task):
    with pytest.raises(ValueError, match=r"'noisy'.*clean"):
        task.demonstrations("noisy", 1, rng())


def test_a_recipe_builds_the_task_from_a_folder_and_not_without(tmp_path):
    spec = recipe.Task(name="sums", options={"digits": 1})
    assert vars(build(spec, tokenizer(tmp_path)))["limit"] == 10
    with pytest.raises(ValueError, match="starts from none"):
        build(spec, None)


def test_more_problems_than_there_are_end_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="task sums was asked for 101 distinct problems and found"):
        Sums(tokenizer(tmp_path), digits=1).problems("train", 101, rng())


def test_facts_name_the_vocabulary(task):
    assert len(task.facts()["vocabulary"]) == 64
