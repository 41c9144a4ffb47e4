"""Check before training that all prompts fit the model's window, so that no run ends at its longest prompt."""

from collections.abc import Sequence

from opd_ops.tasks.task import Problem, TaskLike


def require_fit(
    task: TaskLike, problems: Sequence[Problem], window: int, max_new_tokens: int, *, privileged: bool = False
) -> None:
    """Check that every prompt and a response of `max_new_tokens` fit `window` tokens.

    privileged: check the teacher's prompts too.
    Errors: ValueError for no problems, or naming the longest prompt, the window and the remedy.
    """
    name = getattr(task, "name", type(task).__name__.lower())
    if not problems:
        raise ValueError(f"task {name} gave no prompts: ask for at least one, or widen its options")
    longest, whose = max((len(problem.prompt), "prompt") for problem in problems)
    privileged_lengths = [len(problem.privileged) for problem in problems if privileged and problem.privileged]
    if privileged_lengths and max(privileged_lengths) > longest:
        longest, whose = max(privileged_lengths), "privileged prompt"
    if longest + max_new_tokens > window:
        raise ValueError(
            f"task {name}: a {whose} of {longest} tokens and a response of up to {max_new_tokens} do not fit the "
            f"model's window of {window}: shorten the prompts, lower max_new_tokens, or take a longer window"
        )
