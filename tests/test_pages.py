"""The pages: short, their links lead somewhere, their commands exist, and their version is the package's."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = "pipelines/lake/DICTIONARY.md"
README_WORDS, PAGE_WORDS = 1200, 1500
SKIPPED = {".git", ".venv", ".venv-peers", ".venv-peers312", ".venv-trl", ".opd"}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for top in ROOT.iterdir()
    if top.name not in SKIPPED
    for path in (top.rglob("*.md") if top.is_dir() else [top])
    if path.suffix == ".md"
)
PACKAGES = ("opd_ops", "pipelines", "assets", "deploy", "tests")
YOURS = {"mine.py"}  # what a user writes
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in PAGES if page != GENERATED])
def test_a_page_is_short(page):
    words = len((ROOT / page).read_text().split())
    assert words <= (README_WORDS if page == "README.md" else PAGE_WORDS)


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    text, broken = (ROOT / page).read_text(), []
    for link in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_every_module_that_a_page_names_exists():
    files = {str(path.relative_to(ROOT)) for top in PACKAGES for path in (ROOT / top).rglob("*.py")}
    names = {"/".join(file.split("/")[start:]) for file in files for start in range(file.count("/") + 1)}
    named = {(page, name) for page in PAGES for name in re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text())}
    assert {(page, name) for page, name in named if name not in names | YOURS} == set()


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in LINK.findall(without_code((ROOT / page).read_text())):
            target = (ROOT / page).parent / link.partition("#")[0]
            if link.partition("#")[0].endswith(".md") and not re.match(r"[a-z]+:", link):
                waiting.append(str(target.resolve().relative_to(ROOT)))
    assert set(PAGES) - reached == set()


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        (page, target)
        for page in PAGES
        for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", (ROOT / page).read_text(), re.M)
    }
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_every_opd_command_that_a_page_names_exists():
    command = [sys.executable, "-m", "pipelines.cli", "--help"]
    usage = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = set(re.findall(r"^    (\w+) ", usage, re.M))
    named = {
        (page, command)
        for page in PAGES
        for command in re.findall(r"(?:`|^)opd ([a-z]+)\b", (ROOT / page).read_text(), re.M)
    }
    assert len(commands) > 10
    assert {(page, command) for page, command in named if command not in commands} == set()


def test_the_newest_version_of_the_changelog_is_the_packages():
    versions = re.findall(r"^## (\S+)", (ROOT / ".github/CHANGELOG.md").read_text(), re.M)
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert versions[0] == package
    assert versions == sorted(versions, key=lambda text: [int(part) for part in text.split(".")], reverse=True)
    assert f"version = {{{package}}}" in (ROOT / "README.md").read_text(), "how to cite"


def test_the_deployment_names_the_packages_version():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    files = [path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    tags = {tag for path in files for tag in re.findall(r"opd-geometry:(\d[\d.]*\d)", path.read_text())}
    assert tags == {package}
