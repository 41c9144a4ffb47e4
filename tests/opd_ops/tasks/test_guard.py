import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from opd_ops.tasks.chains import Chains, encode
from opd_ops.tasks.guard import Guarded, VerifierFailed
from opd_ops.tasks.reasoning import Reasoning
from opd_ops.tasks.task import Check, Problem

SLACK = 5.0  # seconds of a loaded machine
VERIFIERS = """
import os, socket, subprocess, time

def wait(response): time.sleep(float(response)); return 1.0
def spin(response): return float(9 ** 9 ** 9 > 0)  # inside one call of C: no Python signal handler would run
def refuse(response): raise LookupError("no such\\nrow")
def leave(response): os._exit(3)
def chatter(response): print("chatter " * 100, flush=True); os.write(1, b"more"); return 1.0
def text(response): return "seven"
def hoard(response): return float(len(bytearray(1 << 40)) > 0)
def write(response): open(response, "w"); return 1.0
def run(response): subprocess.run(["true"]); return 1.0
def shell(response): return float(os.system("true"))
def connect(response): socket.create_connection(("127.0.0.1", 9)); return 1.0
def process(response): return float(os.getpid())
def crash(response): os.kill(os.getpid(), 11)
"""


class Scripted:
    """Checks a response, given as the text of its tokens, with a function of the module `verifiers`."""

    pad, eos, name = 0, 1, "scripted"

    def __init__(self, function):
        self.function = function

    def problems(self, split, count, rng):
        return [Problem(prompt=[1], answer="1")] * count

    def demonstrations(self, stream, count, rng):
        return []

    def verify(self, problem, response):
        return self.check(problem, response).run()

    def check(self, problem, response):
        return Check(function=self.function, response="".join(map(chr, response)), arguments=problem.facts or {})


@pytest.fixture
def guard(tmp_path, monkeypatch):
    """guard(function, seconds=..., overtime=...) -> a Guarded task with that verifier."""
    (tmp_path / "verifiers.py").write_text(VERIFIERS)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(function, **options):
        made.append(Guarded(Scripted(function if ":" in function else f"verifiers:{function}"), **options))
        return made[-1]

    yield make
    for guarded in made:
        guarded.close()


def answered(*responses, **facts):
    return [(Problem(prompt=[1], answer="42", facts=facts or None), [ord(c) for c in text]) for text in responses]


def gone(pid, seconds):
    """Whether a process has ended, or is only waiting to be collected, within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_an_instant_task_is_verified_in_this_process():
    guarded = Guarded(Chains())
    problem = Problem(prompt=[1], answer="#8")
    assert guarded.rewards([(problem, encode("#8")), (problem, encode("#7"))]) == [1.0, 0.0]
    assert guarded._process.process is None and guarded.verify(problem, encode("#8")) == 1.0


def test_it_is_the_task_in_everything_else():
    task = Chains()
    guarded = Guarded(task)
    assert (guarded.pad, guarded.eos, guarded.facts()) == (task.pad, task.eos, task.facts())
    for draw in (lambda t, rng: t.problems("train", 5, rng), lambda t, rng: t.demonstrations("clean", 5, rng)):
        assert draw(guarded, np.random.default_rng(0)) == draw(task, np.random.default_rng(0))


def test_a_batch_of_mathematics_comes_back_in_order_from_one_process(guard):
    guarded = guard("opd_ops.tasks.mathematics:verify_math")
    pairs = answered("42", "41", r"\boxed{\frac{84}{2}}", "no", "Answer: 42.0", gold="42")
    assert guarded.rewards(pairs) == [1.0, 0.0, 1.0, 0.0, 1.0]
    first = guarded._process.process.pid
    assert guarded.rewards(pairs[:1] * 50) == [1.0] * 50
    assert guarded._process.process.pid == first


@pytest.mark.parametrize("response", ["9**9**9**9", r"\boxed{9^{9^{9^9}}}"])
def test_a_response_that_hangs_mathematics_ends_within_the_limit(guard, response):
    guarded = guard("opd_ops.tasks.mathematics:verify_math", seconds=3.0)
    assert guarded.rewards(answered("42", gold="42")) == [1.0]
    pid, begin = guarded._process.process.pid, time.monotonic()
    with pytest.raises(VerifierFailed, match="longer than 3 s") as caught:
        guarded.rewards(answered(response, gold="42"))
    assert time.monotonic() - begin < 3.0 + SLACK and gone(pid, SLACK)
    text = str(caught.value)
    assert (
        all(part in text for part in ("task scripted", response[:5], "'42'", "overtime='wrong'")) and "\n" not in text
    )
    assert guarded.rewards(answered("42", gold="42")) == [1.0]


def test_a_reasoning_task_is_verified_elsewhere_as_it_is_here(folder):
    task = Reasoning(folder, "gsm_symbolic")
    guarded = Guarded(task)
    problems = task.problems("train", 4, np.random.default_rng(0))
    pairs = [(p, task.text.encode(text)) for p in problems for text in (p.answer, f"{p.answer}1", "")]
    assert guarded.rewards(pairs) == [task.verify(*pair) for pair in pairs] == [1.0, 0.0, 0.0] * 4
    guarded.close()


def test_the_limit_is_for_each_response_and_not_for_the_batch(guard):
    assert guard("wait", seconds=1.5).rewards(answered(*["0.5"] * 5)) == [1.0] * 5


@pytest.mark.parametrize("function, response", [("wait", "60"), ("spin", "")])
def test_overtime_can_count_as_wrong_and_is_counted(guard, function, response):
    guarded = guard(function, seconds=0.5, overtime="wrong")
    assert guarded.rewards(answered(response, response)) == [0.0, 0.0]
    assert guarded.overtimes == 2


@pytest.mark.parametrize(
    "function, reason", [("hoard", "raised MemoryError"), ("crash", "failed: its process ended with status -11")]
)
def test_what_takes_all_memory_or_crashes_the_process_is_treated_as_overtime(guard, function, reason):
    with pytest.raises(VerifierFailed, match=rf"{reason}.*; raise resources\.verifier_seconds, or .*overtime='wrong'"):
        guard(function).rewards(answered(""))
    guarded = guard(function, overtime="wrong")
    assert guarded.rewards(answered("")) == [0.0] and guarded.overtimes == 1


NESTED = "\\frac{1}{" * 300 + "2" + "}" * 300
STRANGE = {
    "a tower of powers": "#### 9**9**9**9",
    "a factorial of a factorial": r"\boxed{((9!)!)!}",
    "nested fractions": f"\\boxed{{{NESTED}}}",
    "nested parentheses": "#### " + "(" * 5000 + "1" + ")" * 5000,
    "a million digits": "#### " + "9" * 10**6,
    "a long run that a regular expression could retry": "#### " + "1," * 20_000 + "x",
    "a long run of blanks": "#### 1" + " " * 50_000 + "x",
    "a null character": "#### 4\x002",
    "a lone surrogate": "#### \ud800",
}


def test_no_response_ends_a_run_on_mathematics(guard):
    guarded = guard("opd_ops.tasks.mathematics:verify_math", seconds=0.5, overtime="wrong")
    pairs = answered(*STRANGE.values(), gold="42")
    assert guarded.rewards(pairs) == [0.0] * len(STRANGE)
    assert 1 <= guarded.overtimes <= len(STRANGE)
    guarded.seconds = 10.0
    assert guarded.rewards(answered("#### 42", gold="42")) == [1.0]


@pytest.mark.parametrize(
    "function, reason",
    [
        ("refuse", "raised LookupError: no such row"),
        ("leave", "failed: its process ended with status 3"),
        ("text", "raised ValueError: could not convert string to float"),
        ("absent", "raised ValueError: verifiers defines no absent; it defines: wait, "),
        ("nowhere:verify", "failed: ValueError: there is no module nowhere: install its package"),
    ],
)
def test_a_verifier_that_fails_is_one_line_with_the_answer_and_the_response(guard, function, reason):
    guarded = guard(function, overtime="wrong")
    with pytest.raises(VerifierFailed, match=reason) as caught:
        guarded.rewards(answered("the\nresponse" + "x" * 1000))
    assert guarded.overtimes == 0, "a broken verifier never counts as a wrong answer"
    text = str(caught.value)
    assert "task scripted: the verifier" in text and "'42'" in text and "the" in text and "mend the verifier" in text
    assert "\n" not in text and len(text) < 400


def test_a_task_that_raises_here_is_one_line_too():
    class Broken(Chains):
        def verify(self, problem, response):
            raise ZeroDivisionError("by\nzero")

    with pytest.raises(VerifierFailed, match=r"task chains: the verifier raised ZeroDivisionError: by zero.*'42'"):
        Guarded(Broken()).rewards(answered("1"))


def test_what_a_verifier_prints_is_no_reply(guard):
    assert guard("chatter").rewards(answered("a", "b")) == [1.0, 1.0]


def test_a_helper_that_was_killed_is_replaced(guard):
    guarded = guard("process")
    (first,) = guarded.rewards(answered(""))
    os.kill(int(first), signal.SIGKILL)
    (second,) = guarded.rewards(answered(""))
    assert second != first and gone(int(first), SLACK)


@pytest.mark.parametrize("function", ["write", "run", "shell", "connect"])
def test_a_verifier_can_neither_write_nor_start_processes_nor_connect(guard, tmp_path, function):
    target = tmp_path / "written"
    with pytest.raises(VerifierFailed, match="raised PermissionError: a verifier may not"):
        guard(function).rewards(answered(str(target)))
    assert not target.exists()


def test_close_ends_the_helper_and_the_next_reward_starts_another(guard):
    guarded = guard("process")
    (pid,) = guarded.rewards(answered(""))
    guarded.close()
    assert gone(int(pid), SLACK)
    assert guarded.rewards(answered("")) != [pid]


ORPHAN = """
import os, sys, threading, time
from opd_ops.tasks.task import Check
from opd_ops.tasks.verifier_process import VerifierProcess
verifier = VerifierProcess()
verifier.run(Check(function="verifiers:wait", response="0", arguments={}), 30.0)
print(verifier.process.pid, flush=True)
if sys.argv[1] == "spin":
    check = Check(function="verifiers:spin", response="", arguments={})
    threading.Thread(target=verifier.run, args=(check, 1.0), daemon=True).start()
    time.sleep(0.5)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("state", ["idle", "spin"])
def test_no_helper_outlives_a_parent_that_was_killed(guard, tmp_path, state):
    """Idle: its input closes. In the midst of a check: the kernel's alarm, GRACE after the limit."""
    guard("process")  # writes the verifiers
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    found = subprocess.run(
        [sys.executable, "-c", ORPHAN, state], env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == -signal.SIGKILL
    assert gone(int(found.stdout), 3.0 + SLACK)


DAEMON = """
import multiprocessing
from opd_ops.tasks.guard import Guarded
from opd_ops.tasks.jsonl import Jsonl

def work(queue):
    import numpy as np
    task = Jsonl({folder!r}, {path!r})
    (problem,) = task.problems("train", 1, np.random.default_rng(0))
    queue.put(Guarded(task).rewards([(problem, task.text.encode("7.0"))]))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,), daemon=True)
process.start()
print(queue.get(timeout=60))
"""


def test_it_works_in_a_daemonic_process_which_may_have_no_children_of_its_own(tmp_path, folder):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"prompt": "{i}", "label": "7"}}\n' for i in range(40)))
    script = DAEMON.format(folder=folder, path=str(path))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "[1.0]", found.stderr


def test_bad_limits_and_tasks_without_checks_are_refused():
    class Plain:
        pad, eos = 0, 1

    with pytest.raises(ValueError, match=r"task plain cannot be given a time limit: .*instant = True.*check"):
        Guarded(Plain())
    with pytest.raises(ValueError, match="time limit above 0 s, not 0"):
        Guarded(Chains(), seconds=0.0)
    with pytest.raises(ValueError, match="fail or wrong, not 'skip'"):
        Guarded(Chains(), overtime="skip")
