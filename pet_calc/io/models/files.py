"""Files of a model folder: their names, digests, and writing in one rename.

Free of torch, so that listing what ships is quick.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from pet_calc.errors import IntegrityError, OutputError, PotentialNotFoundError

CONFIG: Final = "config.json"
WEIGHTS: Final = "weights.safetensors"


def sha256(path: Path) -> str:
    """SHA-256 of a file as a hexadecimal string."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def require_digest(path: Path, content: bytes, expected: str) -> None:
    """Raise `IntegrityError` if the `content` of a file does not have the `expected` SHA-256."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected.lower():
        raise IntegrityError(
            f"{path} must have the SHA-256 {expected}, but has {found}: it is damaged or was "
            f"exchanged; restore it from the source you trust"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that readers find the old or the new one.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
        raise OutputError(
            f"{path} cannot be written ({error}); choose a folder that you may write"
        ) from error


def read_file(path: Path) -> bytes:
    """Content of one of a model's files; `PotentialNotFoundError` if there is none."""
    if not path.is_file():
        raise PotentialNotFoundError(
            f"a model is a folder with {CONFIG} and {WEIGHTS}, but there is no {path}"
        )
    return path.read_bytes()
