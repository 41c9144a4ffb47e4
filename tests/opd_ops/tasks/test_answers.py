import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.tasks.answers import final_answer, verify_exact
from opd_ops.tasks.mathematics import verify_math


@pytest.mark.parametrize(
    "response, answer",
    [("42", "42"), (" 42\n", "42"), ("so Answer: 42", "42"), ("Answer: 41\nAnswer: 42", "42"), ("a #### 7", "7"),
     ("Answer: 1 #### 2", "2"), ("#### 1\nAnswer: 2", "2"), ("Answer:", ""), ("", ""), ("two\nlines", "two\nlines")],
)  # fmt: skip
def test_the_final_answer_stands_behind_the_last_mark(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize("response, reward", [("Answer: a b", 1), (" a b ", 1), ("a  b", 0), ("A b", 0), ("", 0)])
def test_exact_answers_are_compared_character_by_character(response, reward):
    assert verify_exact(response, "a b") == reward


@pytest.mark.parametrize(
    "response, gold",
    [("0.5", "1/2"), ("3/6", "0.5"), (r"so it is \boxed{\frac{1}{2}}", "0.5"), ("1,000", "1000"), ("$2^3$", "8"),
     (r"$\frac{\sqrt{4}}{4}$", r"\frac{1}{2}"), ("$x^2+2x+1$", "(x+1)^2"), (r"$\{1,2\}$", r"\{2,1\}"),
     ("Answer: 72", "72"), ("48/2 = <<48/2=24>>24, and 48+24 = <<48+24=72>>72\n#### 72", "72"),
     ("72 apples", "72"), ("50%", "0.5"), (r"\boxed{7}", r"$\boxed{7}$")],
)  # fmt: skip
def test_equal_mathematics_earns_the_reward(response, gold):
    assert verify_math(response, gold) == 1.0


@pytest.mark.parametrize(
    "response, gold",
    [("0.51", "1/2"), ("-3", "3"), ("", "3"), ("no idea", "3"), ("$$", "3"), (r"\boxed{", "3"), (r"$\frac{1}{$", "1"),
     ("Answer: 42 #### 41", "42"), ("Answer:", "42"), ("$x+1$", "y+1"), ("\x00\ud7ff((((", "3")],
)  # fmt: skip
def test_other_or_unreadable_answers_earn_nothing(response, gold):
    assert verify_math(response, gold) == 0.0


def test_a_gold_answer_that_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match=r"cannot read the answer ' '.*verifier exact"):
        verify_math("1", " ")


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_integers_verify_exactly_when_equal(a, b):
    assert verify_math(f"Answer: {a}", str(b)) == float(a == b)


def test_math_works_off_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(verify_math, "0.5", "1/2").result() == 1.0
