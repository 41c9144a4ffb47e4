"""Comparison of final answers as mathematics: 1/2 = 0.5.

It goes through math-verify, which reads LaTeX with a grammar, and plain arithmetic of digits and operators; nothing
else of a response is ever evaluated. It can take for ever (9**9**9**9), so it is called where something else keeps the
time: `guard.py`.
"""

import logging

from math_verify import parse, verify

from opd_ops.tasks.answers import final

# It warns, once a process, that whoever switches its own timeouts off must keep the time.
for _name in ("math_verify.parser", "math_verify.grader", "math_verify.utils"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def verify_math(response: str, gold: str, mark: str = "", tail: str = "") -> float:
    """1.0 if the final answer (`final`) equals the gold one as mathematics (1/2 = 0.5); an unreadable one earns 0.0.

    Where math-verify raises on the response (a million digits, nesting past the stack), it cannot be read.
    Errors: ValueError for a gold answer that cannot be read, MemoryError. No time limit of its own: works on any
    thread.
    """
    # Its own timeouts are signals, which only the main thread may use.
    wanted = parse(gold if "$" in gold or "\\boxed" in gold else f"${gold}$", parsing_timeout=None)  # type: ignore[arg-type]
    if not wanted:
        raise ValueError(f"math-verify cannot read the answer {gold!r}: mend it, or use the verifier exact")
    try:
        answer = parse(final(response, mark, tail), parsing_timeout=None)  # type: ignore[arg-type]
        return float(bool(answer) and verify(wanted, answer, timeout_seconds=None))
    except MemoryError:
        raise
    except Exception:
        return 0.0
