"""Crystals as the graphs that property models read, and their reduced lattices by spglib."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.crystals.models import CrystalGraph, GraphConfig, crystal_graph
from pet_calc.errors import InvalidStructureError, MissingDependencyError


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
    found = _by_spglib(
        "standardize_cell",
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers),
        to_primitive=True,
        no_idealize=True,
        symprec=1e-3,
    )
    if found is None:
        raise InvalidStructureError(
            f"the primitive lattice of {atoms.get_chemical_formula()} was not found; look for "
            f"atoms that are there twice"
        )
    return niggli_lattice(found[0])


def niggli_lattice(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Niggli-reduced vectors (3, 3) in Å of the lattice of a cell, whose orientation they keep.

    Raises
    ------
    InvalidStructureError
        If spglib finds none.
    MissingDependencyError
        Without spglib.
    """
    # reduced by spglib, which keeps the orientation; ASE turns the cell
    found = _by_spglib("niggli_reduce", cell)
    if found is None:
        raise InvalidStructureError(f"spglib finds no Niggli cell of {np.round(cell, 4).tolist()}")
    return np.asarray(found, dtype=float)


def _by_spglib(function: str, *arguments: Any, **options: Any) -> Any:
    """What a function of spglib returns; None where it fails."""
    try:
        import spglib
    except ImportError as error:
        raise MissingDependencyError(
            'reduced cells need spglib; install it with pip install "pet-calc[phonons]"'
        ) from error
    # older and newer versions of spglib fail by None, an error, or a warning that precedes it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return getattr(spglib, function)(*arguments, **options)
        except Exception as error:  # its class differs between versions
            if type(error).__module__.startswith("spglib"):
                return None
            raise
