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
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from pet_calc.crystals.models import CrystalGraph, GraphConfig, crystal_graph
from pet_calc.errors import DatasetError, InvalidStructureError, MissingDependencyError

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
    crystals: list[LabeledCrystal] = []
    for path in paths:
        if not path.is_file():
            raise DatasetError(f"there is no file of crystals {path}")
        try:
            if path.name.endswith(TABLES):
                found = list(from_table(path, read))
            elif path.suffix == ".csv":
                found = list(from_csv(path, read))
            else:
                frames = ase.io.read(path, index=":")
                found = [LabeledCrystal(a, known(a.info, read)) for a in frames]
        except DatasetError:
            raise
        except Exception as error:  # each of ASE's many readers fails in its own way
            raise DatasetError(f"{path} cannot be read as crystals ({error!r})") from error
        crystals += found
    for c in crystals:
        if "is_metal" in names and "band_gap" in c.labels:
            c.labels.setdefault("is_metal", float(c.labels["band_gap"] <= 0))
    if not any(name in c.labels for c in crystals for name in names):
        raise DatasetError(
            f"no crystal of {', '.join(str(p) for p in paths)} has any of the properties "
            f"{', '.join(names)}; check the names of columns or keys"
        )
    return crystals


def known(values: Any, names: Iterable[str]) -> dict[str, float]:
    """The finite numbers among `values` under `names`."""
    found = {n: float(values[n]) for n in names if values.get(n) not in (None, "")}
    return {n: x for n, x in found.items() if math.isfinite(x)}


def from_table(path: Path, names: Iterable[str]) -> Iterable[LabeledCrystal]:
    """Crystals of an ``.npz`` table."""
    names = tuple(names)
    for atoms in structures_of_table(path):
        yield LabeledCrystal(atoms, known(atoms.info, names))


def structures_of_table(path: Path) -> Iterator[Atoms]:
    """Structures of an ``.npz`` table; what it says of each of them is in ``info``."""
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


def from_csv(path: Path, names: Iterable[str]) -> Iterable[LabeledCrystal]:
    """Crystals of a CSV file that names structure files."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        if not row.get("file"):
            raise DatasetError(f"each row of {path} needs a structure file in the column 'file'")
        atoms = ase.io.read(path.parent / row["file"])
        assert isinstance(atoms, Atoms)  # the last frame
        yield LabeledCrystal(atoms, known(row, names))


def require_crystal(atoms: Atoms) -> None:
    """Raise `InvalidStructureError` unless properties of a crystal make sense for `atoms`."""
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InvalidStructureError(
            f"properties are those of crystals, periodic in three dimensions, but "
            f"{atoms.get_chemical_formula()} has periodicity {atoms.pbc.tolist()} and a cell of "
            f"rank {atoms.cell.rank}; give it its cell, and pbc = True"
        )
    # what ASE's CIF reader leaves of sites with several species
    for site in (atoms.info.get("occupancy") or {}).values():
        if len(site) > 1 or any(abs(float(x) - 1) > 1e-6 for x in site.values()):
            raise InvalidStructureError(
                f"every site must hold one atom, but {atoms.get_chemical_formula()} has one with "
                f"the occupancy {site}; order the structure first (a supercell with atoms chosen)"
            )


def graph_of(atoms: Atoms, config: GraphConfig, *, merge: bool = False) -> CrystalGraph:
    """The graph of a crystal (`crystal_graph`); `InvalidStructureError` for what is none."""
    require_crystal(atoms)
    cell = atoms.cell.array
    lattice = cell if config.lattice_edges == "given" else None
    if config.lattice_edges == "primitive":
        lattice = primitive_lattice(atoms)
    return crystal_graph(atoms.numbers, atoms.positions, cell, config, lattice, merge=merge)


def primitive_lattice(atoms: Atoms) -> NDArray[np.float64]:
    """Niggli-reduced vectors (3, 3) in Å of the primitive lattice, whatever cell is given."""
    try:
        import spglib
    except ImportError as error:
        raise MissingDependencyError(
            "lattice edges of the primitive cell need spglib; install it with "
            'pip install "pet-calc[phonons]"'
        ) from error
    # older and newer versions of spglib fail by None, an error, or a warning that precedes it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.standardize_cell(
            (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers),
            to_primitive=True,
            no_idealize=True,
            symprec=1e-3,
        )
        # reduced by spglib, which keeps the orientation; ASE turns the cell
        lattice = None if found is None else spglib.niggli_reduce(found[0])
    if lattice is None:
        raise InvalidStructureError(
            f"the primitive lattice of {atoms.get_chemical_formula()} was not found; look for "
            f"atoms that are there twice"
        )
    return np.asarray(lattice, dtype=float)
