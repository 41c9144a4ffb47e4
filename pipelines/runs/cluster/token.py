"""Ray's token: whoever has it can run programs on a cluster, so a Ray that is started here asks for one.

The token is drawn for each Ray and passed on in the environment of its processes; no file, argument or output contains
it. RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH name another token, and RAY_AUTH_MODE=disabled starts a Ray without one.
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


def requires_token(environment: Mapping[str, str], default: str = "disabled") -> bool:
    """Whether a Ray in `environment` asks for a token. Errors: ValueError for an unknown RAY_AUTH_MODE."""
    mode = environment.get(MODE) or default
    if mode.lower() not in ("token", "disabled"):
        raise ValueError(f"{MODE} {mode!r} is unknown, and Ray would ask for no token; set it to token or disabled")
    return mode.lower() == "token"


def token_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What `environment` lacks for a Ray that asks for a token; empty where RAY_AUTH_MODE is disabled.

    Errors: ValueError of `requires_token` and `read_token`.
    """
    if not requires_token(environment, "token"):
        return {}
    if environment.get(TOKEN):
        return {MODE: "token"}
    if environment.get(FILE):
        read_token({**environment, MODE: "token"})
        return {MODE: "token"}
    return {MODE: "token", TOKEN: secrets.token_hex(32)}


def read_token(environment: Mapping[str, str]) -> str:
    """The token that a process in `environment` has, as Ray looks for it; empty where there is none.

    Errors: ValueError for a token's file that cannot be read, or is empty.
    """
    if not requires_token(environment):
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
def require_token() -> Iterator[None]:
    """A Ray that this process starts in the block asks for a token, which child processes inherit.

    Errors: ValueError of `token_variables`.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    os.environ.update(token_variables(os.environ))
    _reload_ray_settings()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reload_ray_settings()


def _reload_ray_settings() -> None:
    """Make Ray read the environment again: it caches what it read when it was imported, and the token it first used."""
    if "ray" in sys.modules:
        import ray._raylet

        core: Any = ray._raylet
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
