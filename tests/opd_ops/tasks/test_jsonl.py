import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opd_ops import recipe
from opd_ops.tasks.jsonl import Jsonl
from opd_ops.tasks.registry import build


def rng(seed=0):
    return np.random.default_rng(seed)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def path(tmp_path):
    """GSM8K's shape: a, b -> a + b, worked."""
    rows = [
        {"question": f"{a} plus {a + 1}?", "answer": f"{a}+{a + 1}={2 * a + 1}\n#### {2 * a + 1}"} for a in range(80)
    ]
    return write(tmp_path / "sums.jsonl", rows)


@given(questions=st.sets(st.text("abcdefgh ", min_size=1).map(str.strip).filter(bool), min_size=40, max_size=80))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_splits_are_disjoint_whole_and_do_not_depend_on_the_order_of_the_file(tmp_path, folder, questions):
    rows = [{"prompt": q, "label": "1"} for q in sorted(questions)]
    forth = Jsonl(folder, write(tmp_path / "a.jsonl", rows), held_out=2)
    back = Jsonl(folder, write(tmp_path / "b.jsonl", rows[::-1]), held_out=2)
    splits = {name: {e.question for e in forth.examples[name]} for name in ("train", "held_out")}
    assert splits["train"] | splits["held_out"] == questions and not splits["train"] & splits["held_out"]
    assert all({e.question for e in back.examples[name]} == splits[name] for name in splits)


def test_problems_are_distinct_repeat_by_seed_and_end_where_the_file_does(folder, path):
    task = Jsonl(folder, path)
    count = len(task.examples["train"])
    problems = task.problems("train", count, rng())
    assert len({tuple(p.prompt) for p in problems}) == count
    assert problems == task.problems("train", count, rng()) != task.problems("train", count, rng(1))
    with pytest.raises(ValueError, match=f"has {count} train examples, and {count + 1} were asked for"):
        task.problems("train", count + 1, rng())


def test_a_problem_asks_shows_its_solution_to_the_privileged_and_verifies(folder, path):
    task = Jsonl(folder, path)
    for problem, (_, response) in zip(
        task.problems("train", 5, rng()), task.demonstrations("clean", 5, rng()), strict=True
    ):
        asked = task.text.decode(problem.prompt)
        assert asked.endswith("?\nAnswer:")
        assert task.text.decode(problem.privileged).startswith(asked)
        assert f"#### {problem.answer}" in task.text.decode(problem.privileged)
        assert response[-1] == task.eos and task.verify(problem, response[:-1]) == 1.0
        assert task.verify(problem, task.text.encode(f" {problem.answer}.0")) == 1.0
        assert task.verify(problem, task.text.encode(f" {problem.answer}1")) == 0.0


def test_the_exact_verifier_is_instant_and_compares_text(folder, path):
    task = Jsonl(folder, path, verifier="exact")
    (problem,) = task.problems("train", 1, rng())
    assert task.instant and not Jsonl(folder, path).instant
    assert task.verify(problem, task.text.encode(f" {problem.answer}")) == 1.0
    assert task.verify(problem, task.text.encode(f" {problem.answer}.0")) == 0.0


def test_a_file_of_held_out_examples_is_taken_out_of_the_training_ones(tmp_path, folder, path):
    rows = [{"question": "1 plus 2?", "answer": "3"}, {"question": "new", "answer": "4"}]
    task = Jsonl(folder, path, held_out=write(tmp_path / "test.jsonl", rows))
    assert {e.question for e in task.examples["held_out"]} == {"1 plus 2?", "new"}
    assert len(task.examples["train"]) == 79
    assert task.digest != Jsonl(folder, path).digest


def test_a_template_carries_the_demonstration_as_the_file_works_it(chat_folder, path):
    task = Jsonl(chat_folder, path, template=True)
    ((prompt, response),) = task.demonstrations("clean", 1, rng())
    assert task.text.decode(prompt).startswith("<s>user\n") and "####" in task.text.decode(response)
    assert "Answer:" not in task.text.decode(response)


def test_facts_name_the_data_and_the_vocabulary(folder, path):
    task = Jsonl(folder, path)
    assert task.facts() == {**task.text.facts(), "data": task.digest}


def test_demonstrations_may_outnumber_the_examples(folder, path):
    assert len(Jsonl(folder, path).demonstrations("clean", 500, rng())) == 500


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"verifier": "code"}, "no verifier 'code'; known: math, exact"),
        ({"held_out": 1}, "held_out is 2 or more"),
        ({"held_out": 10**9}, "has no held_out example"),
        ({"path": "none.jsonl"}, "none.jsonl cannot be read"),
        ({"prompt": "text"}, "line 1 has no prompt in text"),
    ],
)
def test_bad_options_end_in_one_line(folder, path, options, reason):
    with pytest.raises(ValueError, match=reason):
        build(recipe.Task(name="jsonl", options={"path": path, **options}), folder)


def test_unknown_streams_name_the_known_one(folder, path):
    with pytest.raises(ValueError, match=r"'noisy'.*clean"):
        Jsonl(folder, path).demonstrations("noisy", 1, rng())
