"""The index of shipped models, ``index.toml``: potentials, property models and generators.

It is looked for in the installed package first (``pet_calc/_potentials``) and in a checkout second
(``potentials`` beside the package). A model of the index must have the digests that the index
records.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.foreign.published import PUBLISHED
from pet_calc.io.models.files import CONFIG, WEIGHTS

INDEX: Final = "index.toml"

# in the wheel, then in a checkout
ROOTS: tuple[Path, ...] = (
    Path(__file__).resolve().parents[1] / "_potentials",
    Path(__file__).resolve().parents[2] / "potentials",
)

Kind = Literal["energy", "property", "generator"]

# tables of the index by kind, so that none is ever taken for another
_TABLES: Final[dict[Kind, str]] = {
    "energy": "potential",
    "property": "property",
    "generator": "generator",
}


@dataclass(frozen=True)
class PotentialEntry:
    """A model on disk, not loaded yet.

    Attributes
    ----------
    name : str
        Such as "pet-water-v1"; for a folder outside of the index, its path.
    folder : Path
        Where its files are.
    elements : tuple of str
        Chemical symbols covered, by atomic number; empty for a generator.
    sha256 : dict
        File name to recorded digest; empty for a folder outside of the index.
    summary, method : str
        What it is for; the first-principles method of its data.
    status : str
        "experimental" or "stable".
    architecture : str
        Such as "pet", "pet-original", "crystalformer", "cgcnn" or "unimat-sparse".
    kind : {"energy", "property", "generator"}
        Potentials, models of properties of crystals, and generators of crystals.
    targets : tuple of str
        The properties of a property model.
    crystals_only : bool
        Its data are periodic in three dimensions throughout, and it may be far off elsewhere.
    systems : frozenset of frozenset of str
        Sets of elements that occur together in its data; empty for all subsets of `elements`. A
        potential for magnesium oxide covers Mg, but has no data of the metal.
    formation_energies : bool
        Its energies count from the elements in their reference states, whose energy is thus zero.
    """

    name: str
    folder: Path
    elements: tuple[str, ...]
    sha256: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    method: str = ""
    status: str = "stable"
    architecture: str = "pet"
    kind: Kind = "energy"
    targets: tuple[str, ...] = ()
    crystals_only: bool = False
    systems: frozenset[frozenset[str]] = frozenset()
    formation_energies: bool = False

    def suits(self, elements: Collection[str]) -> bool:
        """Whether structures of exactly these elements are like those of its data."""
        return suits(elements, self.elements, self.systems)

    @property
    def family(self) -> str:
        """The name without its version: "pet-water"."""
        return split_version(self.name)[0]

    @property
    def version(self) -> int:
        """The number behind "-v"; 0 without one."""
        return split_version(self.name)[1]

    @property
    def size(self) -> int:
        """Size of the weights in bytes.

        Raises
        ------
        PotentialNotFoundError
            If there is no weights file.
        """
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise PotentialNotFoundError(
                f"the potential {self.name} has no weights file {path}; install the package "
                f"again, or restore the file"
            )
        return path.stat().st_size


def suits(
    elements: Collection[str], covered: Collection[str], systems: Collection[frozenset[str]]
) -> bool:
    """Whether all `elements` are covered, and occur together in the data."""
    wanted = frozenset(elements)
    return wanted <= set(covered) and (not systems or wanted in systems)


def list_potentials(kind: Kind = "energy") -> list[PotentialEntry]:
    """The shipped models of a kind, in the order of the index.

    Raises
    ------
    PotentialNotFoundError
        If there is no index, neither in the package nor in a checkout.
    CheckpointError
        If the index is damaged.
    """
    for root in ROOTS:
        path = root / INDEX
        if path.is_file():
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CheckpointError(f"{path} is not valid TOML: {error}") from error
            return [entry_from_table(root, kind, v) for v in table.get(_TABLES[kind], [])]
    places = " nor ".join(str(root / INDEX) for root in ROOTS)
    raise PotentialNotFoundError(
        f"the list of shipped potentials is missing: there is neither {places}; install the "
        f"package again, or name a potential's folder"
    )


def entry_from_table(root: Path, kind: Kind, values: dict[str, Any]) -> PotentialEntry:
    """An entry of the index; `CheckpointError` for one that lacks a key."""
    try:
        name, digests = values["name"], values["sha256"]
        elements = () if kind == "generator" else values["elements"]
        missing = sorted({CONFIG, WEIGHTS} - set(digests))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"each entry of {root / INDEX} needs name, elements and a table sha256, got {values}"
        ) from error
    if missing:
        raise CheckpointError(f"{root / INDEX} records no SHA-256 of {missing} for {name}")
    return PotentialEntry(
        name=name,
        folder=root / name,
        elements=tuple(elements),
        sha256=dict(digests),
        summary=values.get("summary", ""),
        method=values.get("method", ""),
        status=values.get("status", "stable"),
        architecture=values.get("architecture", "pet"),
        kind=kind,
        targets=tuple(values.get("targets", ())),
        crystals_only=bool(values.get("crystals_only", False)),
        systems=frozenset(frozenset(s.split("-")) for s in values.get("systems", ())),
        formation_energies=bool(values.get("formation_energies", False)),
    )


def split_version(name: str) -> tuple[str, int]:
    """Family and version of a name: "pet-water-v1" is ("pet-water", 1); 0 without a version."""
    match = re.fullmatch(r"(.+)-v(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


def find_shipped(name: str, kind: Kind = "energy") -> PotentialEntry | None:
    """The model of that name in the index, the newest version if none is named; None if absent.

    Raises
    ------
    PotentialNotFoundError
        If there is no index.
    """
    entries = list_potentials(kind)
    named = [e for e in entries if e.name == name] or [e for e in entries if e.family == name]
    return max(named, key=lambda e: e.version) if named else None


def find_property_model(name: str) -> PotentialEntry | None:
    """The shipped property model of that name, the newest version if none is named."""
    return find_shipped(name, "property")


def unknown_name(name: str, kind: Kind = "energy") -> PotentialNotFoundError:
    """The error for a name that nothing has, with the names that are closest to it."""
    shipped = [e.name for e in list_potentials(kind)]
    published = [p.name for p in PUBLISHED] if kind == "energy" else []
    what = {"energy": "potential", "property": "property model", "generator": "generator"}[kind]
    similar = closest(name, [*reversed(shipped), *published])
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return PotentialNotFoundError(
        f"no {what} is named {name!r} (shipped: {', '.join(shipped) or 'none'}) and no such path "
        f"exists; {hint}`pet-calc models list --all` shows all names, those for download included"
    )


def closest(name: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Up to `most` known names that are similar to `name`, with or without their versions."""
    # of several versions of one model the first in the list is offered
    by_family: dict[str, str] = {}
    for full in known:
        by_family.setdefault(re.sub(r"-v[\d.]+$", "", full), full)
    wanted = re.sub(r"-v[\d.]*$", "", name.lower())
    return [by_family[f] for f in difflib.get_close_matches(wanted, by_family, most, cutoff=0.7)]
