"""Damage that is done to bytes, to JSON and to safetensors headers: what happens, and what somebody might write."""

import copy
import json
import random
import struct
from typing import Any

DEEP = "\u0001deep\u0001"  # stands for what json cannot write itself
DIGITS = "\u0001digits\u0001"
RAW = {
    json.dumps(DEEP): "[" * 10_000 + "]" * 10_000,
    json.dumps(DIGITS): "9" * 5_000,
}
NAMES = (
    "..", ".", "", "/", "/etc/passwd", "../../x", "a/../../b", "a/b", "a\\b", "..\\..\\x", "a\x00b", "a\nb",
    "a\r\x1b[2Jb", "a\u2028b", "\ud800", "\x7f", "C:\\x", "~", "$HOME", "a" * 5_000, "%2e%2e", "*", "[a]",
    "file:///etc/passwd", "\u00e9",
)  # fmt: skip
NUMBERS = (
    -1, 0, 1, 2**31, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e308,
    float("nan"), float("inf"),
)  # fmt: skip
VALUES = (
    *NAMES,
    *NUMBERS,
    None,
    True,
    False,
    [],
    {},
    [[]],
    [{}],
    {"": {}},
    [None] * 3,
    DEEP,
    DIGITS,
    "F32",
    "I64",
    "BF16",
)
HUGE = (2**60, 2**63 - 1, 2**63, 2**64 - 1, 10 * 2**20)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, repeated, left out or put in."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(found) + 1)
        length = draw.choice((1, 2, 4, 8, 64))
        match draw.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << draw.randrange(8)
            case 1:
                del found[at:]
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = draw.randbytes(length)
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                found[at : at + 8] = struct.pack("<Q", draw.choice(HUGE))
            case _:
                found[at : at + length] = draw.choice((b"\x00", b"\xff")) * length
    return bytes(found)


def said_otherwise(data: bytes, draw: random.Random) -> bytes:
    """A JSON document of which some values or names are others, absent, or stand twice."""
    document = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        document = _changed(document, draw)
    text = json.dumps(document, indent=1, sort_keys=draw.random() < 0.5)
    for short, long in RAW.items():
        text = text.replace(short, long)
    if draw.random() < 0.1 and "{" in text:  # a key that stands twice
        text = text.replace("{", '{"layout": 1, "layout": 2, "a": {}, "a": {}, ', 1)
    return text.encode(errors="surrogatepass")


def reheaded(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header, which may claim another length than it has."""
    (length,) = struct.unpack_from("<Q", data)
    header, rest = data[8 : 8 + length], data[8 + length :]
    header = said_otherwise(header, draw) if draw.random() < 0.8 else damaged(header, draw)
    claimed = draw.choice(HUGE) if draw.random() < 0.15 else len(header)
    return struct.pack("<Q", claimed) + header + rest


def _changed(document: Any, draw: random.Random) -> Any:
    """The document with one change somewhere in it."""
    places = list(_places(document))
    if not places:
        return copy.deepcopy(draw.choice(VALUES))
    inside, name = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del inside[name]
    elif kind == 1 and isinstance(inside, dict):
        inside[draw.choice(NAMES)] = inside.pop(name)
    elif kind == 2:
        other, there = draw.choice(places)
        inside[name] = copy.deepcopy(other[there])
    elif kind == 3 and type(inside[name]) in (int, float):
        inside[name] += draw.choice((-8, -1, 1, 4, 8, 2**40))
    elif kind in (4, 5) and type(inside[name]) in (int, float):
        inside[name] = draw.choice(NUMBERS)
    else:
        inside[name] = copy.deepcopy(draw.choice(VALUES))
    return document


def _places(document: Any) -> Any:
    names = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for name in names:
        yield document, name
        yield from _places(document[name])
