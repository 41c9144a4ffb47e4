"""Names that stay where they are put: of objects in a store, of one folder or file, of tensors.

No name leads out of its store (.., an absolute path, a backslash), and none holds a character that ends a line, moves a
terminal's cursor or has no UTF-8.
"""

import re
import reprlib

NAME = r"[^/\\\x00-\x1f\x7f]+"  # of one folder or file; `require_name` refuses . and ..
LONGEST = 1024  # characters of a tensor's name
_UNSPEAKABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, ends of lines, half characters
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 100
_SHOWN.maxtuple = _SHOWN.maxlist = 8


def stays_inside(key: str) -> bool:
    """Whether a name stays in its store on every backend."""
    return not ({"", ".", ".."} & set(key.split("/")) or "\\" in key or has_control_characters(key))


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters, ends of lines or half characters (lone surrogates)."""
    return bool(_UNSPEAKABLE.search(text))


def require_name(name: str, what: str) -> str:
    """A name of one folder or file. Errors: ValueError in one line for what would lead elsewhere."""
    if not name or "/" in name or not stays_inside(name):
        raise ValueError(f"{what} {repr_short(name)} is no name: leave out /, \\, .., and control characters")
    return name


def repr_short(value: object) -> str:
    """A foreign value as a message shows it: in one line, and not longer than a person reads."""
    return _UNSPEAKABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", _SHOWN.repr(value))


def escape_text(text: str) -> str:
    """A text in one line: what ends a line or moves a cursor is written as its escape."""
    return _UNSPEAKABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
