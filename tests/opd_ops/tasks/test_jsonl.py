import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opd_ops import recipe
from opd_ops.tasks.jsonl import Jsonl
from opd_ops.tasks.registry import build, outline


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


@pytest.fixture
def facts_path(tmp_path):
    """Rows with fields of their own."""
    rows = [{"who": f"p{i}", "meta": {"year": 1900 + i}, "born": str(1900 + i)} for i in range(60)]
    return write(tmp_path / "facts.jsonl", rows)


def test_a_prompt_is_a_template_of_any_fields_and_marks_nothing_itself(folder, facts_path):
    prompt = "Q: when was {who} born, in {{{meta.year}}}?\nA:"
    task = Jsonl(folder, facts_path, prompt=prompt, answer="born", verifier="exact")
    (problem,) = task.problems("train", 1, rng())
    year = problem.answer
    asked = f"Q: when was p{int(year) - 1900} born, in {{{year}}}?\nA:"
    assert task.text.decode(problem.prompt) == asked
    assert task.text.decode(problem.privileged) == f"{asked} {year}\n\n{asked}"
    assert task.verify(problem, task.text.encode(f" {year}")) == 1.0
    ((_, response),) = task.demonstrations("clean", 1, rng())
    assert task.text.decode(response[:-1]).strip().isdecimal()


def test_the_template_of_the_default_form_asks_and_answers_as_it_does(folder, path):
    own, default = Jsonl(folder, path, prompt="{question}\nAnswer:"), Jsonl(folder, path)
    pairs = [
        {(tuple(p), tuple(r)) for p, r in task.demonstrations("clean", len(task.examples["train"]), rng())}
        for task in (own, default)
    ]
    assert len(pairs[0] & pairs[1]) > 40  # another text of the prompt holds out other examples
    told = [{tuple(p.privileged) for p in t.problems("train", len(t.examples["train"]), rng())} for t in (own, default)]
    assert len(told[0] & told[1]) > 40


@pytest.mark.parametrize(
    "response", ["{solution}\nSo it is {answer}.", "It is {answer}.\n", "{answer}", "<<{answer}>>"]
)
@pytest.mark.parametrize("verifier", ["math", "exact"])
def test_every_demonstration_of_a_response_template_earns_the_reward_and_a_wrong_one_does_not(
    folder, path, response, verifier
):
    task = Jsonl(folder, path, response=response, verifier=verifier)
    problems = {p.answer: p for p in task.problems("train", 20, rng())}
    for example in task.examples["train"]:
        if problem := problems.get(example.answer):
            written = response.format(solution=example.solution, answer=example.answer)
            assert example.response == written
            assert task.verify(problem, task.text.encode(written)) == 1.0
            wrong = response.format(solution="1", answer=f"{example.answer}7")
            assert task.verify(problem, task.text.encode(wrong)) == 0.0


def test_a_function_makes_prompts_and_its_digest_says_when_they_change(folder, facts_path, tmp_path):
    file = tmp_path / "mine_prompts.py"
    file.write_text("def prompt(row): return row['who'].upper() + '?'\ndef terse(row): return row['who']\n")
    task = Jsonl(folder, facts_path, prompt=f"{file}:prompt", answer="born")
    assert {e.question for e in task.examples["train"]} <= {f"P{i}?" for i in range(60)}
    facts = task.facts()
    assert Jsonl(folder, facts_path, prompt=f"{file}", answer="born").facts() == facts
    assert Jsonl(folder, facts_path, prompt=f"{file}:terse", answer="born").facts()["composed"] != facts["composed"]
    assert "composed" not in Jsonl(folder, facts_path, prompt="{who}", answer="born").facts()


def test_a_chat_template_asks_the_own_prompt_and_nothing_else(chat_folder, facts_path):
    options = {"prompt": "When was {who} born?", "answer": "born", "template": True}
    (problem,) = Jsonl(chat_folder, facts_path, **options).problems("train", 1, rng())
    text = Jsonl(chat_folder, facts_path, **options).text
    person = int(problem.answer) - 1900
    assert text.decode(problem.prompt) == f"<s>user\nWhen was p{person} born?</s><s>assistant\n"
    with_instruction = Jsonl(chat_folder, facts_path, instruction="Be brief.", **options)
    assert "\n\nBe brief.</s>" in with_instruction.text.decode(with_instruction.problems("train", 1, rng())[0].prompt)


def test_several_tokens_end_a_response(folder, path):
    task = Jsonl(folder, path, eos=["</s>", "\n", 1])
    newline = task.text.encode("\n")[0]
    assert (task.eos, task.stops) == (2, (newline, 1))
    assert task.facts()["stops"] == [newline, 1] and "stops" not in Jsonl(folder, path).facts()
    assert task.demonstrations("clean", 1, rng())[0][1][-1] == 2


def test_how_many_are_held_out_is_said_without_a_tokenizer_and_when_too_many_are_asked_for(folder, path):
    task = Jsonl(folder, path)
    held = len(task.examples["held_out"])
    assert outline(recipe.Task(name="jsonl", options={"path": path})) == f"{path}: {held} of 80 held out"
    assert outline(recipe.Task(name="chains")) == ""
    with pytest.raises(
        ValueError, match=rf"with {held} of 80 held out: ask for {held} at most \(evaluation\.problems\)"
    ):
        task.problems("held_out", held + 1, rng())


@pytest.mark.parametrize(
    "options, reason",
    [
        (
            {"prompt": "{questoin}?"},
            r"line 1 has no field 'questoin', which the option prompt names; it has: question, a",
        ),
        ({"prompt": "{}?"}, r"option prompt '\{\}\?' names no field in \{\}"),
        ({"prompt": "{question"}, r"option prompt '\{question' is no template: .*; write \{\{ for a brace"),
        ({"prompt": "./none.py:prompt"}, r"the file .*none\.py cannot be read"),
        ({"response": "{gold}"}, r"line 1 has no field 'gold', which the option response names; it has: .*solution"),
        ({"prompt": "FILE:number"}, r"line 1 is no example for the option prompt: .*:number returns int, not text"),
        ({"prompt": "FILE:broken"}, r"line 1 is no example .*f\.py line 2 raises KeyError: 'nothing'"),
        ({"eos": []}, "the option eos lists no token"),
        ({"eos": ["</s>", 9999]}, "eos 9999 is no id of the tokenizer of"),
        ({"eos": ["</s>", "ab"]}, "'ab' is not one token"),
    ],
)
def test_bad_prompts_and_ends_are_one_line_with_the_value_and_what_is_known(folder, path, tmp_path, options, reason):
    (tmp_path / "f.py").write_text("def number(row): return 3\ndef broken(row): return row['nothing']\n")
    options = {k: v.replace("FILE", str(tmp_path / "f.py")) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(ValueError, match=reason) as caught:
        build(recipe.Task(name="jsonl", options={"path": path, **options}), folder)
    assert "\n" not in str(caught.value)
