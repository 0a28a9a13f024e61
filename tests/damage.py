"""Damaged copies of files: flipped bits, truncations, and JSON with random changes."""

from __future__ import annotations

import copy
import random


def with_flipped_bits(content, count, seed=0):
    """Yield copies of a file's content in which one random bit is flipped."""
    for position in random.Random(seed).sample(range(8 * len(content)), count):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


def truncated(content, count):
    """Yield the beginnings of a file's content, of evenly spaced lengths."""
    for i in range(count):
        yield content[: i * len(content) // count]


def nested(depth):
    """Return lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


STRANGE = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, -(2**70), 10**300, 0.5, -0.0, 1.5, 1e308, "", "x", "0.5"),
    *("../x", "\ud800", "\x00", [], {}, [[]], [None], [0], ["a"], ["a", "a"], {"a": 1}, {"a": [1, 2]}, nested(50)),
)


def with_random_changes(value, count, seed=0):
    """Yield copies of plain values in which one random part is replaced, removed, repeated or moved."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(value)
        parents = list(_containers(changed))
        parent = rng.choice(parents)
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key, action = rng.choice(keys), rng.choice(["replace", "replace", "remove", "repeat", "move"])
        if action == "replace":
            parent[key] = copy.deepcopy(rng.choice(STRANGE))
        elif action == "remove":
            del parent[key]
        elif action == "move":
            parent[key] = copy.deepcopy(rng.choice(parents))
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[f"{key}2"] = copy.deepcopy(parent[key])
        yield changed


def _containers(value):
    """Yield the lists and dictionaries in a value that are not empty, the value itself included."""
    if isinstance(value, dict | list) and value:
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def assert_refused(error, name):
    """Check that an error is one line that names the file."""
    message = str(error)
    assert name in message
    assert len(message) <= 300
    assert "\n" not in message
