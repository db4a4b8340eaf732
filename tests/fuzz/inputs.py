"""The forms that fuzzed inputs have, and how each is mutated. Everything follows from a `random.Random`."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from causeway_client.fragments import MARK
from causeway_client.protocol.packets import STUN_COOKIE, PacketType

Form = Literal["bytes", "script", "json"]

MAX_SIZE = 8_192
MAX_STEPS = 40
_STEP = struct.Struct("<BH")

MAGIC = [STUN_COOKIE, MARK, *(bytes((kind, 1)) for kind in PacketType), b"\x00\x01", b"\x01\x01", b"\x80\x28", b"\n"]
INTERESTING_INTEGERS = [0, 1, 7, 8, 59, 60, 63, 64, 127, 128, 254, 255, 256, 1200, 1201, 1232, 2**15, 2**16 - 1]
INTERESTING_INTEGERS += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
VALUES: list[Any] = [
    *(None, True, False, "", "x", "0", "a" * 300, "\x00", "\ud800", "é\u202e", "::1", "fe80::1%eth0", "1e999"),
    *([], {}, [[]], [None], {"": 0}, [0] * 300, {str(n): n for n in range(260)}),
    *(-1, -(2**63), -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), 10**400, -(10**400)),
    *INTERESTING_INTEGERS,
]


# A script: any number of steps, each | head u8 | size u16 | data |; the last one may be cut off.


def script(steps: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(_STEP.pack(head, len(data)) + data for head, data in steps)


def steps_of(content: bytes) -> list[tuple[int, bytes]]:
    """At most MAX_STEPS."""
    steps, at = [], 0
    while len(content) - at >= _STEP.size and len(steps) < MAX_STEPS:
        head, size = _STEP.unpack_from(content, at)
        at += _STEP.size
        steps.append((head, content[at : at + size]))
        at += size
    return steps


# Mutations


def mutate(form: Form, corpus: Sequence[bytes], draw: random.Random) -> bytes:
    """A new input from those of the corpus, which must not be empty."""
    base = draw.choice(corpus)
    other = draw.choice(corpus)
    if draw.random() < 0.1:
        return _some(_BYTES, base, other, draw)[:MAX_SIZE]
    return _MUTATORS[form](base, other, draw)[:MAX_SIZE]


def _mutate_bytes(base: bytes, other: bytes, draw: random.Random) -> bytes:
    return _some(_BYTES, base, other, draw)


def _mutate_script(base: bytes, other: bytes, draw: random.Random) -> bytes:
    steps, others = steps_of(base), steps_of(other)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(steps)) if steps else 0
        match draw.randrange(6) if steps else 0:
            case 0:
                steps[at:at] = draw.choices(others, k=draw.choice((1, 1, 3))) if others else [(0, b"")]
            case 1:
                del steps[at : at + draw.choice((1, 1, 5))]
            case 2:
                steps[at:at] = [steps[at]] * draw.choice((1, 1, 10))
            case 3:
                steps[at] = draw.randrange(256), steps[at][1]
            case _:
                head, data = steps[at]
                spliced = draw.choice(others)[1] if others else b""
                steps[at] = head, _some(_BYTES, data, spliced, draw)
    return script((head, data[:1400]) for head, data in steps[:MAX_STEPS])


def _mutate_json(base: bytes, other: bytes, draw: random.Random) -> bytes:
    try:
        document, donor = json.loads(base), json.loads(other)
    except (ValueError, RecursionError):
        return _some(_BYTES, base, other, draw)
    for _ in range(draw.choice((1, 1, 2, 4))):
        document = _changed(document, donor, draw)
    return json.dumps(document).encode()


def _changed(document: Any, donor: Any, draw: random.Random) -> Any:
    places = list(_places(document))
    container, key = draw.choice(places)
    if container is None:
        return draw.choice((copy.deepcopy(draw.choice(VALUES)), [document], {"x": document}, document))
    old = container[key]
    match draw.randrange(8):
        case 0:
            del container[key]
        case 1:
            of, name = draw.choice(list(_places(donor)))
            container[key] = json.loads(json.dumps(donor if of is None else of[name]))
        case 2 if isinstance(container, list):
            container[key:key] = [copy.deepcopy(old) for _ in range(draw.choice((1, 2, 40)))]
        case 2:
            names = [name for _, name in places if isinstance(name, str)]
            container[draw.choice([*names, "", "\x00", "x" * 200])] = copy.deepcopy(old)
        case 3:
            for _ in range(draw.choice((1, 30))):
                old = [old] if draw.random() < 0.5 else {"x": old}
            container[key] = old
        case 4 if isinstance(old, int | float) and not isinstance(old, bool) and abs(old) < 2**64:
            container[key] = draw.choice((old + 1, old - 1, -old, old * 2, float(old), str(old)))
        case 5 if isinstance(old, str):
            at = draw.randrange(len(old) + 1)
            container[key] = old[:at] + draw.choice(("", "\x00", "\ud83d", "0", " ", "-", "::", "/")) + old[at + 1 :]
        case _:
            container[key] = copy.deepcopy(draw.choice(VALUES))
    return document


def _places(document: Any) -> Iterable[tuple[Any, Any]]:
    """(container, key) of each value; (None, None) for the document."""
    yield None, None
    waiting = [document]
    while waiting:
        container = waiting.pop()
        if isinstance(container, list | dict):
            items = list(enumerate(container)) if isinstance(container, list) else list(container.items())
            for key, value in items[:200]:
                yield container, key
                waiting.append(value)


def _some(mutators: Sequence["_Mutator"], base: bytes, other: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 4))):
        base = draw.choice(mutators)(base, other, draw)
    return base


_Mutator = Callable[[bytes, bytes, random.Random], bytes]


def _place_in(data: bytes, draw: random.Random) -> int:
    """Headers are what decides, so rather near the beginning."""
    return draw.randrange(min(len(data), 32) + 1 if draw.random() < 0.5 else len(data) + 1)


def _flip(data: bytes, _: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\0"
    changed, at = bytearray(data), min(_place_in(data, draw), len(data) - 1)
    changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _insert(data: bytes, _: bytes, draw: random.Random) -> bytes:
    at = _place_in(data, draw)
    added = draw.choice(MAGIC) if draw.random() < 0.5 else draw.randbytes(draw.choice((1, 2, 4, 16, 200)))
    return data[:at] + added + data[at:]


def _cut(data: bytes, _: bytes, draw: random.Random) -> bytes:
    at = _place_in(data, draw)
    return data[:at] + data[at + draw.choice((1, 2, 4, 8, 100)) :]


def _truncate(data: bytes, _: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _overwrite(data: bytes, _: bytes, draw: random.Random) -> bytes:
    at, size = _place_in(data, draw), draw.choice((1, 2, 4, 8))
    number = draw.choice(INTERESTING_INTEGERS) % (1 << 8 * size)
    return data[:at] + number.to_bytes(size, draw.choice(("little", "big"))) + data[at + size :]


def _splice(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: _place_in(data, draw)] + other[_place_in(other, draw) :]


def _repeat(data: bytes, _: bytes, draw: random.Random) -> bytes:
    at = _place_in(data, draw)
    part = data[at : at + draw.choice((1, 4, 20))]
    return data[:at] + part * draw.choice((2, 3, 60)) + data[at:]


_BYTES: list[_Mutator] = [_flip, _insert, _cut, _truncate, _overwrite, _splice, _repeat]
_MUTATORS: dict[Form, _Mutator] = {"bytes": _mutate_bytes, "script": _mutate_script, "json": _mutate_json}
