"""Random numbers that depend on what they are for, and on nothing that was drawn before."""

import hashlib
import json

import numpy as np


def named_rng(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for everything that is named."""
    key = json.dumps([seed, *names]).encode()
    return np.random.default_rng(list(hashlib.sha256(key).digest()))
