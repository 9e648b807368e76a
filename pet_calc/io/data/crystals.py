"""Crystals with properties, from tables and structure files.

Three forms are read: an ``.npz`` (or ``.npz.xz``) table with ``n_atoms``, ``numbers``, ``frac``,
``cellpar`` and one array per property; extended XYZ, or whatever ASE reads, with properties in
``info``; and a CSV file with a column ``file``, which names a structure beside it, and one column
per property. A property that is absent, empty or NaN is not known of that crystal.
"""

from __future__ import annotations

import csv
import io
import lzma
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from pet_calc.errors import DatasetError

#: Endings of tables of crystals.
TABLES: Final = (".npz", ".npz.xz")


@dataclass(frozen=True, eq=False)
class LabeledCrystal:
    """A crystal and what is known of it.

    Attributes
    ----------
    atoms : ase.Atoms
    labels : dict
        Property to value, without those that are not known.
    """

    atoms: Atoms
    labels: dict[str, float]


def read_crystals(paths: Sequence[Path], names: Iterable[str]) -> list[LabeledCrystal]:
    """Crystals of several files with the properties `names`.

    ``is_metal`` is derived from ``band_gap`` (1 at 0 eV, else 0) where a file does not have it.

    Raises
    ------
    DatasetError
        If a file is absent or unreadable, or no crystal has any of the properties.
    """
    names = tuple(names)
    read = set(names) | ({"band_gap"} if "is_metal" in names else set())
    crystals = [
        LabeledCrystal(atoms, known(atoms.info, read))
        for path in paths
        for atoms in read_structures(path)
    ]
    for c in crystals:
        if "is_metal" in names and "band_gap" in c.labels:
            c.labels.setdefault("is_metal", float(c.labels["band_gap"] <= 0))
    if not any(name in c.labels for c in crystals for name in names):
        raise DatasetError(
            f"no crystal of {', '.join(str(p) for p in paths)} has any of the properties "
            f"{', '.join(names)}; check the names of columns or keys"
        )
    return crystals


def known(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """The finite numbers among `values` under `names`."""
    found = {n: float(values[n]) for n in names if values.get(n) not in (None, "")}
    return {n: x for n, x in found.items() if math.isfinite(x)}


def read_structures(path: Path) -> list[Atoms]:
    """Structures of a file in any of the three forms; their properties are in ``info``.

    Raises
    ------
    DatasetError
        If the file is absent or unreadable.
    """
    if not path.is_file():
        raise DatasetError(f"there is no file of crystals {path}")
    try:
        if path.name.endswith(TABLES):
            return list(structures_of_table(path))
        if path.suffix == ".csv":
            return list(structures_of_csv(path))
        frames = ase.io.read(path, index=":")
        return [frames] if isinstance(frames, Atoms) else list(frames)
    except DatasetError:
        raise
    except Exception as error:  # each of ASE's many readers fails in its own way
        raise DatasetError(f"{path} cannot be read as crystals ({error!r})") from error


def structures_of_table(path: Path) -> Iterator[Atoms]:
    """Structures of an ``.npz`` table; their properties are in ``info``."""
    table = read_table(path)
    ends = np.cumsum(table["n_atoms"].astype(np.int64))
    described = {"n_atoms", "numbers", "frac", "cellpar"}
    columns = {m: v for m, v in table.items() if m not in described and len(v) == len(ends)}
    for k, (end, n) in enumerate(zip(ends, table["n_atoms"], strict=True)):
        part = slice(int(end - n), int(end))
        cell = cellpar_to_cell(table["cellpar"][k].astype(float))
        positions = table["frac"][part].astype(float) @ cell
        info = {m: v[k] for m, v in columns.items()}
        yield Atoms(table["numbers"][part].astype(int), positions, cell=cell, pbc=True, info=info)


def read_table(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` or ``.npz.xz`` table of crystals.

    Raises
    ------
    DatasetError
        If it is no such table, or lacks what describes the crystals.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".xz":
            raw = lzma.decompress(raw)
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            table = {k: archive[k] for k in archive.files}
    except (ValueError, OSError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a NumPy table, reading failed: {error}") from error
    missing = {"n_atoms", "numbers", "frac", "cellpar"} - set(table)
    if missing:
        raise DatasetError(f"the table {path} lacks {sorted(missing)}")
    return table


def structures_of_csv(path: Path) -> Iterator[Atoms]:
    """Structures that the rows of a CSV file name."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        if not row.get("file"):
            raise DatasetError(f"each row of {path} needs a structure file in the column 'file'")
        atoms = ase.io.read(path.parent / row["file"])
        assert isinstance(atoms, Atoms)  # the last frame
        atoms.info.update(row)
        yield atoms
