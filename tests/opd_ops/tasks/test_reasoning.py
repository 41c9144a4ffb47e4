import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opd_ops import recipe
from opd_ops.tasks.reasoning import Reasoning
from opd_ops.tasks.registry import build
from opd_ops.tasks.task import Problem


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def task(folder):
    return Reasoning(folder, "chain_sum", {"min_terms": 2, "max_terms": 2})


@given(st.integers(0, 2**32), st.integers(1, 60))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_splits_never_share_a_prompt_whatever_the_seed(task, seed, count):
    found = {
        split: [tuple(p.prompt) for p in task.problems(split, count, rng(seed))] for split in ("train", "held_out")
    }
    assert all(len(set(prompts)) == count for prompts in found.values())
    assert not set(found["train"]) & set(found["held_out"])
    other = {tuple(p.prompt) for p in task.problems("train", count, rng(seed + 1))}
    assert not other & set(found["held_out"])


def test_no_demonstration_shows_a_held_out_prompt(folder):
    task = Reasoning(folder, "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    held_out = {tuple(p.prompt) for p in task.problems("held_out", 20, rng())}
    shown = {tuple(p) for seed in range(4) for p, _ in task.demonstrations("clean", 80, rng(seed))}
    assert not shown & held_out


def test_a_problem_asks_in_completion_form_and_the_privileged_prompt_shows_the_answer(task):
    for problem in task.problems("train", 20, rng()):
        asked, told = task.text.decode(problem.prompt), task.text.decode(problem.privileged)
        assert asked.endswith("\nAnswer:") and told == f"{asked} {problem.answer}\n\n{asked}"
        assert problem.facts.keys() == {"seed", "index"}


def test_demonstrations_verify_and_end_in_eos(task):
    pairs = task.demonstrations("clean", 20, rng())
    for (prompt, response), problem in zip(pairs, task.problems("train", 20, rng()), strict=True):
        assert prompt == problem.prompt and response[-1] == task.eos
        assert task.verify(problem, response[:-1]) == 1.0


@pytest.mark.parametrize(
    "text, reward", [("{} ", 1), ("so\nAnswer: {}", 1), ("{}1", 0), ("{} {}", 0), ("", 0), ("x", 0)]
)
def test_only_the_final_answer_earns_the_reward(task, text, reward):
    (problem,) = task.problems("train", 1, rng())
    assert task.verify(problem, task.text.encode(text.replace("{}", problem.answer))) == reward


def test_everything_repeats_by_seed_and_differs_between_seeds(task):
    assert task.problems("held_out", 9, rng(3)) == task.problems("held_out", 9, rng(3))
    assert task.problems("held_out", 9, rng(3)) != task.problems("held_out", 9, rng(4))
    assert task.demonstrations("clean", 9, rng(3)) == task.demonstrations("clean", 9, rng(3))


def test_a_template_asks_as_the_user(chat_folder):
    task = Reasoning(chat_folder, "products", template=True)
    (problem,) = task.problems("train", 1, rng())
    assert task.text.decode(problem.prompt).startswith("<s>user\n")
    ((_, response),) = task.demonstrations("clean", 1, rng())
    assert task.text.decode(response) == f"Answer: {problem.answer}</s>"


def test_a_dataset_that_states_no_answers_has_problems_and_no_demonstrations(folder):
    task = Reasoning(folder, "graph_color")
    (problem,) = task.problems("train", 1, rng())
    assert problem.privileged is None and task.verify(problem, task.text.encode("{}")) == 0.0
    with pytest.raises(ValueError, match="scores answers and states none"):
        task.demonstrations("clean", 1, rng())


def test_more_problems_than_there_are_end_in_one_line(folder):
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "allow_negation": False}
    task = Reasoning(folder, "chain_sum", config)
    with pytest.raises(ValueError, match=r"reasoning \(chain_sum\) was asked for 5000 distinct problems and found \d+"):
        task.problems("train", 5000, rng())


def test_a_problem_of_another_task_is_refused(task):
    with pytest.raises(ValueError, match="no facts"):
        task.verify(Problem(prompt=[1], answer="1"), [1])


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"dataset": "chian_sum"}, "near it: chain_sum"),
        ({"dataset": "countdown"}, "refused"),
        ({"threshold": 0.0}, "threshold lies above 0"),
        ({"datset": "chain_sum"}, "task reasoning has no option datset; it has dataset, config, threshold, eos"),
    ],
)
def test_bad_options_end_in_one_line(folder, options, reason):
    with pytest.raises(ValueError, match=reason):
        build(recipe.Task(name="reasoning", options=options), folder)


def test_unknown_streams_name_the_known_one(task):
    with pytest.raises(ValueError, match=r"'noisy'.*clean"):
        task.demonstrations("noisy", 1, rng())
