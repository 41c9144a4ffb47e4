"""Comparison of final answers as mathematics: 1/2 = 0.5.

math-verify reads LaTeX with a grammar and evaluates plain arithmetic of digits and operators; nothing else of a
response is ever evaluated. It can take for ever (9**9**9**9), so the caller must limit its time: `guard.py`.
"""

import logging

from math_verify import parse, verify

from opd_ops.tasks.answers import final_answer

# It warns once per process that its own timeouts are off.
for _name in ("math_verify.parser", "math_verify.grader", "math_verify.utils"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def verify_math(response: str, gold: str, mark: str = "", tail: str = "") -> float:
    """1.0 if the final answer (`final_answer`) equals the gold one as mathematics (1/2 = 0.5), else 0.0.

    A response on which math-verify raises (a million digits, nesting past the stack) earns 0.0, too. There is no time
    limit, so it works on any thread.
    Errors: ValueError for a gold answer that cannot be read, MemoryError.
    """
    # Its own timeouts are signals, which only the main thread may use.
    wanted = parse(gold if "$" in gold or "\\boxed" in gold else f"${gold}$", parsing_timeout=None)  # type: ignore[arg-type]
    if not wanted:
        raise ValueError(f"math-verify cannot read the answer {gold!r}: mend it, or use the verifier exact")
    try:
        answer = parse(final_answer(response, mark, tail), parsing_timeout=None)  # type: ignore[arg-type]
        return float(bool(answer) and verify(wanted, answer, timeout_seconds=None))
    except MemoryError:
        raise
    except Exception:
        return 0.0
