"""Dataclasses from the tables of a configuration file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises
    ------
    ValueError
        If the file does not exist or is not TOML.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: the file does not exist; name a TOML file of a training")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable TOML file: {error}") from error


def require_sections(values: dict[str, Any], names: Iterable[str]) -> None:
    """Raise `ValueError` if the configuration of a training lacks one of these names."""
    if missing := sorted(set(names) - set(values)):
        raise ValueError(f"the training configuration lacks the section(s) {missing}")


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Dataclass from plain values, refusing unknown names with the list of known ones.

    Lists become tuples, as all of these dataclasses are frozen.
    """
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown option(s) {unknown} in {where}; known are {sorted(known)}")
    required = {
        f.name
        for f in fields(cls)  # type: ignore[arg-type]
        if f.default is MISSING and f.default_factory is MISSING
    }
    missing = sorted(required - set(values))
    if missing:
        raise ValueError(f"option(s) {missing} are missing in {where}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
