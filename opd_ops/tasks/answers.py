"""The final answer of a response, the text after its last mark, and its comparison character by character."""

from opd_ops.tasks.text import MARK

MARKS = (MARK, "####")  # `####` is GSM8K's


def final(response: str) -> str:
    """The text after the last mark; all of it where there is none."""
    end = max((response.rfind(mark) + len(mark) for mark in MARKS if mark in response), default=0)
    return response[end:].strip()


def verify_exact(response: str, gold: str) -> float:
    """1.0 if the final answer is the gold one, character by character, spaces around it aside."""
    return float(final(response) == gold.strip())
