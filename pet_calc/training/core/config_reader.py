"""Dataclasses from the tables of a configuration file."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


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
