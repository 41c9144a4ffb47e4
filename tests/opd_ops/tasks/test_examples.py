import hashlib
import json

import pytest

from opd_ops.tasks.examples import Example, read_examples


def write(tmp_path, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


GSM8K = {"question": "Natalia sold 48 clips, then half as many?", "answer": "48/2 = 24, 48+24 = 72\n#### 72"}
DAPO = {
    "prompt": [{"role": "user", "content": "Find x."}],
    "reward_model": {"ground_truth": "34", "style": "rule"},
    "data_source": "math_dapo",
}


@pytest.mark.parametrize(
    "row, example",
    [
        (GSM8K, Example(question=GSM8K["question"], answer="72", solution=GSM8K["answer"])),
        (DAPO, Example(question="Find x.", answer="34", solution=None)),
        ({"prompt": "Find x.", "label": "34"}, Example(question="Find x.", answer="34", solution=None)),
        ({"prompt": "p", "label": 34}, Example(question="p", answer="34", solution=None)),
        (
            {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}], "label": "1"},
            Example(question="Be brief.\n\nq", answer="1", solution=None),
        ),
    ],
)
def test_the_known_shapes_are_recognised(tmp_path, row, example):
    assert read_examples(write(tmp_path, row)).examples == [example]


def test_fields_can_be_named_with_dots(tmp_path):
    path = write(tmp_path, {"q": "1+1", "meta": {"gold": "2"}, "answer": "another"})
    assert read_examples(path, "q", "meta.gold").examples == [Example(question="1+1", answer="2", solution=None)]


def test_the_digest_is_that_of_the_file(tmp_path):
    path = write(tmp_path, GSM8K, DAPO)
    with open(path, "rb") as file:
        assert read_examples(path).digest == hashlib.sha256(file.read()).hexdigest()


def test_duplicates_collapse_and_contradictions_are_left_out_and_counted(tmp_path):
    rows = [{"prompt": p, "label": a} for p, a in (("a", "1"), ("b", "2"), ("a", "1"), ("b", "3"), ("b", "2"))]
    found = read_examples(write(tmp_path, *rows))
    assert [example.question for example in found.examples] == ["a"] and found.contradictory == 1


@pytest.mark.parametrize(
    "row, reason",
    [
        ("{broken", r"line 3 is not JSON.*it reads \{broken"),
        ([1, 2], r"line 3 is no JSON object; it reads \[1, 2\]"),
        ({"quest": "?", "answer": "1"}, r"line 3 has no prompt in question, prompt, problem.*it reads .*quest"),
        (
            {"question": "?"},
            r"line 3 has no answer in label, reward_model.ground_truth, answer.*options prompt and answer",
        ),
        ({"question": " ", "answer": "1"}, "line 3 has no prompt"),
        ({"question": "?", "answer": ["1"]}, "line 3 has no answer"),
        ({"question": "?", "answer": True}, "line 3 has no answer"),
        ({"question": "?", "answer": "work ####"}, "line 3 has nothing behind ####"),
        ({"prompt": [{"role": "user", "content": "a"}] * 2, "label": "1"}, "line 3 has no prompt"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_text(tmp_path, row, reason):
    path = write(tmp_path, GSM8K, "", row)
    with pytest.raises(ValueError, match=reason) as caught:
        read_examples(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_a_long_bad_line_is_cut(tmp_path):
    with pytest.raises(ValueError) as caught:
        read_examples(write(tmp_path, "x" * 10_000))
    assert len(str(caught.value)) < 400


def test_empty_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no example"):
        read_examples(write(tmp_path, "", "  "))
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_examples(str(tmp_path / "none.jsonl"))
