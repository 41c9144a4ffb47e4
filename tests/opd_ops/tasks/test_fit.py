import pytest

from opd_ops.tasks.chains import Chains
from opd_ops.tasks.fit import require_fit
from opd_ops.tasks.task import Problem

PROBLEMS = [Problem(prompt=[1] * n, answer="1", privileged=[1] * (n + 20)) for n in (3, 10, 7)]


def test_the_longest_prompt_and_its_response_fill_the_window_at_most():
    require_fit(Chains(), PROBLEMS, window=34, max_new_tokens=24)
    with pytest.raises(ValueError, match=r"task chains: a prompt of 10 tokens.*up to 24 .*window of 33: shorten"):
        require_fit(Chains(), PROBLEMS, window=33, max_new_tokens=24)


def test_the_privileged_prompt_counts_where_it_is_read():
    require_fit(Chains(), PROBLEMS, window=54, max_new_tokens=24, privileged=True)
    with pytest.raises(ValueError, match="a privileged prompt of 30 tokens"):
        require_fit(Chains(), PROBLEMS, window=53, max_new_tokens=24, privileged=True)


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="task chains gave no prompts"):
        require_fit(Chains(), [], window=64, max_new_tokens=24)
