"""Mutations of bytes and of plain values, each a function of a random generator alone."""

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WIDE = (1 << 40, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
MAX_BYTES = 1 << 20
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, -(2**31), 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308),
    *(5e-324, float("nan"), float("inf"), float("-inf"), "", "a", "\0", "\n", "\x1b[31m", "\ud800"),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "é" * 1000,
        "_x",
        [],
        [[]],
        [0],
        {},
        {"": {}},
        [None] * 1000,
    ),
)
"""What a field may be set to by somebody who means harm."""


def mutate_bytes(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One to six byte-level mutations of a seed."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 6)):
        place = random.randint(0, len(data))
        length = min(len(data) - place, random.choice((1, 1, 2, 4, 8, 64, 1024)))
        match random.randrange(9):
            case 0:
                data[place : place + length] = random.randbytes(length)
            case 1 if place < len(data):
                data[place] ^= 1 << random.randrange(8)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = random.randbytes(length)
            case 4:
                data[place:place] = data[place : place + length] * random.choice((1, 2, 100))
            case 5:
                number, size = random.choice(_EDGES), random.choice((1, 2, 4))
                order = random.choice(("little", "big"))
                number &= (1 << 8 * size) - 1
                data[place : place + size] = number.to_bytes(size, order)
            case 6:
                data[place:place] = _varint(random.choice((*_EDGES, *_WIDE)))
            case 7:
                other = random.choice(seeds)
                start = random.randint(0, len(other))
                data[place : place + length] = other[start : start + random.randint(0, 256)]
            case _ if random.random() < 0.2:
                del data[place:]
        del data[MAX_BYTES:]
    return bytes(data)


def mutate_value(random: Random, value: Any) -> Any:
    """A copy of a value of JSON or TOML with one to three of its parts replaced."""
    root = [copy.deepcopy(value)]
    for _ in range(random.randint(1, 3)):
        holder, key = _some_place(random, root)
        kind = random.randrange(5)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1:
            nested: Any = holder[key]
            for _ in range(random.choice((1, 3, 30, 400))):
                nested = [nested] if random.random() < 0.5 else {"a": nested}
            holder[key] = nested
        elif kind == 2 and isinstance(holder, dict):
            holder[random.choice(("", "a", "name", "__class__", "\n", "\x1b"))] = holder[key]
        elif kind == 3 and isinstance(holder[key], int | float):
            holder[key] *= random.choice((-1, 0, 2, 10, 1000, 10**6))
        else:
            holder[key] = copy.deepcopy(random.choice(VALUES))
    return root[0]


def mutate_json(random: Random, text: str) -> str:
    """A JSON text with one to three of its parts replaced.

    One that is nested too deeply to be read or written here, as mutations of mutations can be, is
    nested more deeply by its brackets alone.
    """
    try:
        return json.dumps(mutate_value(random, json.loads(text)))
    except RecursionError:
        return "[" * 1000 + text + "]" * 1000


def _some_place(random: Random, root: list[Any]) -> tuple[Any, Any]:
    """A container within ``root`` and a key of it."""
    holder, key = root, 0
    while True:
        inner = holder[key]
        keys = (
            list(inner) if isinstance(inner, dict) else range(len(inner)) if _is_list(inner) else ()
        )
        if not keys or (holder is not root and random.random() < 0.3):
            return holder, key
        holder, key = inner, random.choice(keys)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _varint(number: int) -> bytes:
    """As protocol buffers write an unsigned integer."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
