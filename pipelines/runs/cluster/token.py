"""Ray's token: who has it can run programs on a cluster, so a Ray that is started here asks for one.

It is drawn anew and passed on in the environment of the processes that are started, and no file, argument or output has
it. RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH name another, and RAY_AUTH_MODE=disabled starts a Ray that asks for none.
"""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODE, TOKEN, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT = ".ray/auth_token"  # Ray's own file, under the home folder


def asked(environment: Mapping[str, str], default: str = "disabled") -> bool:
    """Whether a Ray in `environment` asks for a token. Errors: ValueError for an unknown RAY_AUTH_MODE."""
    mode = environment.get(MODE) or default
    if mode.lower() not in ("token", "disabled"):
        raise ValueError(f"{MODE} {mode!r} is unknown, and Ray would ask for no token; set it to token or disabled")
    return mode.lower() == "token"


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What `environment` lacks for a Ray that asks for a token; nothing where RAY_AUTH_MODE is disabled.

    Errors: ValueError as `asked` and `of` have it.
    """
    if not asked(environment, "token"):
        return {}
    if environment.get(TOKEN):
        return {MODE: "token"}
    if environment.get(FILE):
        of({**environment, MODE: "token"})
        return {MODE: "token"}
    return {MODE: "token", TOKEN: secrets.token_hex(32)}


def of(environment: Mapping[str, str]) -> str:
    """The token that a process in `environment` has, as Ray looks for it; empty where it uses none.

    Errors: ValueError for a token's file that cannot be read, or is empty.
    """
    if not asked(environment):
        return ""
    if environment.get(TOKEN):
        return environment[TOKEN]
    file = Path(environment.get(FILE) or Path.home() / DEFAULT)
    reason = "it is empty"
    try:
        if text := file.read_text(errors="replace").strip():
            return text
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise ValueError(
        f"Ray's token is to be read from {file}, which holds none ({reason}); set {FILE} to the token's file, or "
        f"{TOKEN} to the token"
    )


@contextmanager
def required() -> Iterator[None]:
    """The Ray that this process starts in the block asks for a token, which its children have too.

    Errors: ValueError as `variables` has it.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    os.environ.update(variables(os.environ))
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Ray keeps what it read of the environment when it was imported, and the token that it used first."""
    if "ray" in sys.modules:
        import ray._raylet

        core: Any = ray._raylet
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
