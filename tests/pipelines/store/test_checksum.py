import json

import pytest

from pipelines.store.checksum import FIELD, add_checksum, remove_checksum

FACTS = {"layout": 2, "files": {"a": {"size": 3}}, "rate": 1e-5, "name": "ö", "steps": [0, 1], "none": None, 3: (1, 2)}


def written(facts):
    return json.dumps(facts, indent=1, sort_keys=False).encode()


def test_a_sealed_object_opens_as_what_was_sealed_however_it_is_spaced():
    there = json.loads(json.dumps(FACTS))
    assert remove_checksum(written(add_checksum(FACTS)), "k") == there
    assert remove_checksum(json.dumps(add_checksum(FACTS), separators=(",", ":")).encode(), "k") == there
    assert remove_checksum(written(dict(reversed(add_checksum(FACTS).items()))), "k") == there


def test_an_object_of_an_earlier_version_opens_as_it_is():
    assert remove_checksum(b'{"layout": 1}', "k") == {"layout": 1}


def test_where_it_came_from_is_no_part_of_what_it_says():
    here, there = (add_checksum({"fingerprint": "f", "provenance": {"host": host}}) for host in ("here", "there"))
    assert here[FIELD] == there[FIELD] != add_checksum({"fingerprint": "g", "provenance": {"host": "here"}})[FIELD]


def test_every_flipped_bit_is_detected():
    data = json.dumps(add_checksum({"step": 5, "digest": "ab", "flags": [True, None, 0.5], "layout": 1})).encode()
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"^runs/x/end\.json is [^\n]*$"):
            remove_checksum(bytes(flipped), "runs/x/end.json", marker="layout")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"3", b"[" * 100_000])
def test_what_is_no_json_object_is_one_line(data):
    with pytest.raises(ValueError, match=r"^runs/x/run\.json is not .*; bring it back") as caught:
        remove_checksum(data, "runs/x/run.json")
    assert "\n" not in str(caught.value)
