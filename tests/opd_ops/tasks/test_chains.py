import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_ops import recipe
from opd_ops.tasks import chains
from opd_ops.tasks.chains import ALPHABET, BOS, EOS, PAD, ROW, VOCABULARY, Chains, decode, encode
from opd_ops.tasks.registry import build
from opd_ops.tasks.task import Problem

FACTS = [(a, o, b) for a in range(10) for o in "+-*" for b in range(10)]


def rng(seed=0):
    return np.random.default_rng(seed)


def steps(response):
    """(a, op, b, stated) of every worked step of a decoded response."""
    return [(int(x[0]), x[1], int(x[2]), int(x[4])) for x in decode(response).split("#")[0].split(";") if x]


@given(st.text(ALPHABET))
def test_encoding_round_trips_and_avoids_the_special_tokens(text):
    tokens = encode(text)
    assert decode(tokens) == text
    assert all(max(PAD, BOS, EOS) < t < VOCABULARY for t in tokens)


def test_the_worked_example_of_the_module():
    problem = Problem(prompt=[BOS, *encode("M:7+8-3*4=")], answer="#8")
    assert Chains().verify(problem, encode("7+8=5;5-3=2;2*4=8;#8")) == 1.0


def test_apply_is_arithmetic_mod_10():
    assert [chains.apply(3, o, 7) for o in "+-*"] == [0, 6, 1]


@pytest.mark.parametrize(
    "response, reward",
    [("#8", 1), ("2*4=8;#8", 1), ("#3;#8", 1), ("", 0), ("8", 0), ("#", 0), ("#7", 0), ("#88", 0), ("#8;", 0),
     ("#8#", 0), ("#8#7", 0), ("8#", 0), ("#08", 0)],
)  # fmt: skip
def test_only_the_exact_answer_after_the_last_mark_earns_the_reward(response, reward):
    assert Chains().verify(Problem(prompt=[BOS], answer="#8"), encode(response)) == reward


def test_special_tokens_in_the_answer_earn_nothing():
    problem = Problem(prompt=[BOS], answer="#8")
    for stray in (PAD, BOS, EOS, VOCABULARY - 1):
        assert Chains().verify(problem, [*encode("#8"), stray]) == 0.0
        assert Chains().verify(problem, [*encode("#"), stray, *encode("8")]) == 0.0


@pytest.mark.parametrize("operations, tag", [(1, "M"), (2, "C"), (3, "M")])
def test_problems_ask_what_they_say(operations, tag):
    for problem in Chains(operations, tag).problems("train", 50, rng()):
        text = decode(problem.prompt[1:])
        assert problem.prompt[0] == BOS
        assert text.startswith(f"{tag}:") and text.endswith("=") and len(text) == 2 * operations + 4
        value = int(text[2])
        for operator, digit in zip(text[3:-1:2], text[4:-1:2], strict=True):
            value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 10
        assert problem.answer == f"#{value}"


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_the_privileged_prompt_states_the_true_facts_of_the_question_as_corpus_documents(operations):
    for problem in Chains(operations).problems("train", 50, rng()):
        assert problem.privileged[-len(problem.prompt) :] == problem.prompt
        text = decode(problem.prompt[1:])
        shown = problem.privileged[: -len(problem.prompt)]
        documents = [shown[i : i + 9] for i in range(0, len(shown), 9)]
        assert len(documents) == operations and all(d[0] == BOS and d[-1] == EOS for d in documents)
        value, facts = int(text[2]), [decode(d[1:-1]) for d in documents]
        assert "".join(fact[3:5] for fact in facts) == text[3:-1]
        for fact in facts:
            a, o, b, stated = int(fact[2]), fact[3], int(fact[4]), int(fact[6])
            assert fact[:2] == "F:" and fact[5] == "=" and a == value and stated == chains.apply(a, o, b)
            value = stated
        assert problem.answer == f"#{value}"


def test_the_privileged_prompt_and_a_whole_answer_fit_the_window_of_the_tiny_study():
    (problem,) = Chains(3).problems("train", 1, rng())
    assert len(problem.privileged) == 38 and len(problem.privileged) + 24 <= 64


def test_prompts_are_those_that_studies_were_run_on():
    """The digest of what was drawn before problems had a privileged prompt."""
    drawn = rng(1)
    prompts = [p.prompt for split in ("train", "held_out") for p in Chains().problems(split, 256, drawn)]
    assert hashlib.sha256(bytes(t for p in prompts for t in p)).hexdigest()[:16] == "c2d3028c4696bf93"


def test_more_problems_than_there_are_end_in_one_line():
    with pytest.raises(ValueError, match="task chains was asked for 301 distinct problems and found"):
        Chains(1).problems("train", 301, rng())


@pytest.mark.parametrize("operations, count", [(1, 20), (3, 400)])
def test_held_out_and_training_problems_are_distinct_and_disjoint(operations, count):
    task = Chains(operations)
    found = {split: [tuple(p.prompt) for p in task.problems(split, count, rng(1))] for split in ("train", "held_out")}
    assert all(len(set(prompts)) == count for prompts in found.values())
    assert not set(found["train"]) & set(found["held_out"])


def test_no_demonstration_shows_a_held_out_chain():
    task = Chains(1)
    held_out = {tuple(p.prompt) for p in task.problems("held_out", 30, rng())}
    shown = {tuple(p) for s in ("clean", "noisy") for p, _ in task.demonstrations(s, 2000, rng())}
    assert len(shown) > 200 and not shown & held_out


def test_clean_demonstrations_verify_and_fit_the_answer_length():
    task = Chains()
    for prompt, response in task.demonstrations("clean", 200, rng()):
        value = int(decode(prompt[1:])[2])
        for a, o, b, stated in steps(response[:-1]):
            assert a == value and stated == chains.apply(a, o, b)
            value = stated
        assert task.verify(Problem(prompt=prompt, answer=f"#{value}"), response[:-1]) == 1.0
        assert response[-1] == EOS and EOS not in response[:-1] and len(response) == 21


def test_noisy_demonstrations_get_half_of_the_hard_facts_wrong_and_go_on_from_them():
    hard = wrong = 0
    for _, response in Chains().demonstrations("noisy", 1000, rng()):
        worked = steps(response[:-1])
        for a, o, b, stated in worked:
            truth = chains.apply(a, o, b)
            if chains.is_hard(a, o, b):
                hard, wrong = hard + 1, wrong + (stated != truth)
            else:
                assert stated == truth
        assert all(x[3] == y[0] for x, y in itertools.pairwise(worked))
        assert decode(response[:-1]).endswith(f"#{worked[-1][3]}")
    assert hard > 800
    # Five standard deviations of a fair coin.
    assert abs(wrong / hard - 0.5) < 5 * 0.5 / hard**0.5


def test_about_a_third_of_the_facts_are_hard_with_every_operator():
    hard = [fact for fact in FACTS if chains.is_hard(*fact)]
    assert 75 <= len(hard) <= 125
    assert all(15 <= sum(o == operator for _, o, _ in hard) <= 55 for operator in "+-*")


def test_packed_rows_have_the_declared_length_and_hold_whole_documents_first():
    for prompt, response in Chains().demonstrations("corpus", 200, rng()):
        row = prompt + response
        assert len(prompt) == 1 and len(row) == ROW and row[0] == BOS and PAD not in row
        assert all(row[i + 1] == BOS for i, t in enumerate(row[:-1]) if t == EOS)
        assert all(row[i - 1] == EOS for i, t in enumerate(row) if t == BOS and i)


def test_the_corpus_shows_every_kind_of_document_and_wrong_hard_facts():
    kinds, hard, wrong = set(), 0, 0
    for prompt, response in Chains().demonstrations("corpus", 600, rng()):
        text = "".join({BOS: "|", EOS: ""}.get(t) or decode([t]) for t in prompt + response if t != EOS)
        for document in text.split("|")[1:-1]:  # the last one may be cut
            kinds.add(document[0])
            body = document[2:]
            if document[0] == "F":
                a, o, b = int(body[0]), body[1], int(body[2])
                if chains.is_hard(a, o, b):
                    hard, wrong = hard + 1, wrong + (int(body[4]) != chains.apply(a, o, b))
                else:
                    assert int(body[4]) == chains.apply(a, o, b)
            if document[0] == "R":
                assert body.split(">")[1] == body.split(">")[0][::-1]
            if document[0] == "K":
                assert body.split(">")[1] == body.split(">")[0]
    assert kinds == set("FCRK")
    # Five standard deviations around the 60 % of the module.
    assert hard > 100 and abs(wrong / hard - 0.6) < 5 * 0.49 / hard**0.5


@pytest.mark.parametrize("stream", ["corpus", "noisy", "clean"])
def test_streams_repeat_by_seed_and_differ_between_seeds(stream):
    task = Chains()
    first = task.demonstrations(stream, 20, rng(3))
    assert first == Chains().demonstrations(stream, 20, rng(3)) != task.demonstrations(stream, 20, rng(4))


def test_problems_repeat_by_seed():
    for split in ("train", "held_out"):
        assert Chains().problems(split, 9, rng(3)) == Chains().problems(split, 9, rng(3))


def test_unknown_streams_and_tasks_name_the_known_ones():
    with pytest.raises(ValueError, match=r"'dirty'.*corpus, noisy, clean"):
        Chains().demonstrations("dirty", 1, rng())
    with pytest.raises(ValueError, match=r"'chess'.*chains, jsonl, reasoning, sums"):
        build(recipe.Task(name="chess"), None)


def test_a_recipe_builds_the_task_with_its_options():
    task = build(recipe.Task(name="chains", options={"operations": 2, "tag": "C"}), None)
    assert isinstance(task, Chains) and (task.operations, task.tag) == (2, "C")
    assert (task.pad, task.eos) == (PAD, EOS)
