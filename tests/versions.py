"""A tenant's version by a quick hash of its settings: the slow one takes as long as all else that a short test does."""

import hashlib
import os
from functools import partial
from typing import Any
from unittest.mock import patch

_slow = hashlib.scrypt


def quick_scrypt(document: bytes, *, n: int, **options: Any) -> bytes:
    """Return the same with the least work; with LONG=1, with all of it."""
    return _slow(document, n=n if os.environ.get("LONG") else 2, **options)


quick_versions = partial(patch.object, hashlib, "scrypt", quick_scrypt)
