"""Checks names of objects, folders, files and tensors, and formats foreign values for messages.

A valid name does not lead out of its store (.., an absolute path, a backslash). It holds no line break, no control
character and no lone surrogate.
"""

import re
import reprlib

NAME = r"[^/\\\x00-\x1f\x7f]+"  # of one folder or file; `require_name` refuses . and ..
LONGEST = 1024  # characters of a tensor's name
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # also line separators and lone surrogates
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100
_REPR.maxtuple = _REPR.maxlist = 8


def stays_inside(key: str) -> bool:
    """Whether a name stays inside its store on every backend."""
    return not ({"", ".", ".."} & set(key.split("/")) or "\\" in key or has_control_characters(key))


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters, line separators or lone surrogates."""
    return bool(_CONTROL.search(text))


def require_name(name: str, what: str) -> str:
    """The name of one folder or file, after a check. Errors: ValueError in one line for a name that leads elsewhere."""
    if not name or "/" in name or not stays_inside(name):
        raise ValueError(f"{what} {repr_short(name)} is no name: leave out /, \\, .., and control characters")
    return name


def repr_short(value: object) -> str:
    """The repr of a value for a message: one line, abbreviated."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", _REPR.repr(value))


def escape_text(text: str) -> str:
    """A text in one line, with control characters and line separators escaped."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
