"""Files for other programs about a running local stack, which only this user can read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_file(file: Path, text: str) -> Iterator[None]:
    """Keep `text` in a new file until the end. It replaces one that an earlier stack may have left."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
