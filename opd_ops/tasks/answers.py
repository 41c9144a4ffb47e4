"""The final answer of a response, the text after its last mark, and its comparison character by character."""

from opd_ops.tasks.text import MARK

MARKS = (MARK, "####")  # `####` is GSM8K's


def final_answer(response: str, mark: str = "", tail: str = "") -> str:
    """The text after the last mark, all of it where there is none; up to `tail`, where it has that.

    mark: in the place of the usual ones.
    """
    marks = (mark,) if mark else MARKS
    end = max((response.rfind(mark) + len(mark) for mark in marks if mark in response), default=0)
    answer = response[end:].strip()
    return answer.partition(tail)[0].strip() if tail else answer


def verify_exact(response: str, gold: str, mark: str = "", tail: str = "") -> float:
    """1.0 if the final answer (`final_answer`) is the gold one, character by character, spaces around it aside."""
    return float(final_answer(response, mark, tail) == gold.strip())
