"""Names of recipes, which are names of folders in every store."""

import re
import reprlib

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
ALLOWED = "use up to 200 letters, digits, ., _, + and -, and begin with a letter or digit"


def require_name(name: str, what: str) -> None:
    """Errors: ValueError naming the field, where another recipe's name is none."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {reprlib.repr(name)} names no recipe: {ALLOWED}")
