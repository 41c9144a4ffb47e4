"""Files of deploy/, read once; and the versions that they must agree with."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def documents(name: str) -> list[dict]:
    """The YAML documents of a file of deploy/."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """Package and version, as constraints.txt pins them, and this project's own."""
    found = dict(re.findall(r"^([\w.-]+)==(\S+)$", (DEPLOY / "constraints.txt").read_text(), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name.lower(): version for name, version in found.items()} | {project["name"]: project["version"]}


@pytest.fixture(scope="session")
def compose() -> dict:
    return documents("compose/compose.yaml")[0]
