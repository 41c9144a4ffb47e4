"""Properties have no deadline, since cores are shared, and see the same examples every time, as under Hypothesis' own
profile for CI; `pytest --hypothesis-profile=searching` draws others.

Every test is marked by what it starts: `ray`, `s3`, `browser`, `processes`; what starts processes or takes seconds is
also `slow`. `make fast` runs the tests that have none of these marks.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.pop("COLUMNS", None)  # 80 in a worker of xdist: output is piped here, and its sentences stay whole

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, derandomize=False)
settings.load_profile("same")

# A fixture that a test asks for, or a name that its code uses -> its mark.
MARKS = {
    **dict.fromkeys(("workers", "ray", "cluster"), "ray"),
    **dict.fromkeys(("s3", "s3_server", "seaweed"), "s3"),
    "browser": "browser",
    **dict.fromkeys(("webserver", "dagster", "subprocess", "processes"), "processes"),
}
# What takes seconds, as the beginning of its id.
SLOW = (
    "adversary/", "assets/", "bench/", "chaos/", "deploy/", "e2e/", "fuzz/", "refusals/", "test_absent",
    "test_processes", "opd_ops/geometry/test_before", "opd_ops/geometry/test_certified",
    "opd_ops/geometry/test_engine", "opd_ops/geometry/test_support", "opd_ops/tasks/test_guard",
    "opd_ops/training/test_constrained", "opd_ops/training/test_loop", "opd_ops/training/test_parted",
    "opd_ops/training/test_sharded", "pipelines/cli/test_measure", "pipelines/cli/test_monitor",
    "pipelines/cli/test_new", "pipelines/cli/test_read_only", "pipelines/cli/test_study_summary",
    "pipelines/lake/test_lake.py::test_row_groups", "pipelines/maintenance/test_audit",
    "pipelines/paper/test_items", "pipelines/report/test_figures", "pipelines/report/test_page",
    "pipelines/runs/", "pipelines/statistics/test_verdicts", "pipelines/store/test_races",
)  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `-m "not slow"` leaves out is not even imported."""
    path = collection_path.relative_to(Path(__file__).parent).as_posix() + "/" * collection_path.is_dir()
    return True if "not slow" in config.option.markexpr and path.startswith(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert isinstance(item, pytest.Function)
        names = {*item.fixturenames, *item.function.__code__.co_names}
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        marks = {MARKS[name] for name in names & MARKS.keys()} | ({"s3"} if "s3" in values else set())
        if "processes" in marks or item.nodeid.removeprefix("tests/").startswith(SLOW):
            marks.add("slow")
        for mark in sorted(marks):
            item.add_marker(mark)
