"""What the contributing page says about the code is true: its paths exist, and what it says to look for is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
QUESTIONS = re.findall(r"^\| (.+\?) \| `(.+?)` \| `(.+?)` \|$", PAGE, re.M)
FOLDERS = ("opd_ops", "pipelines", "assets", "deploy", "tests")


def test_every_path_exists():
    paths = {path for path in re.findall(r"`([\w./-]+)`", PAGE) if path.startswith(tuple(f"{f}/" for f in FOLDERS))}
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_there_are_ten_questions_or_more():
    assert len(QUESTIONS) >= 10


@pytest.mark.parametrize(("question", "path", "symbol"), QUESTIONS)
def test_what_to_look_for_is_there(question, path, symbol):
    assert symbol in (ROOT / path).read_text(), question
