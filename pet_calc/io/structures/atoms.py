"""The one conversion between ``ase.Atoms`` and `System`."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import System
from pet_calc.io.structures.charge_and_spin import charge_and_spin
from pet_calc.neighbors.api import check_cell, check_finite


def system_from_atoms(
    atoms: Atoms, device: torch.device | str = "cpu", *, state: bool = True
) -> System:
    """The structure of `atoms` as a `System` of one, in float64.

    Positions are taken unwrapped as given, and any mix of periodic directions is accepted. The
    tensors own their memory: a `System` is a value and stays when `atoms` is moved in place.

    Parameters
    ----------
    atoms : ase.Atoms
        Positions and cell in Å; total charge and spin multiplicity in ``info``, see
        `pet_calc.io.structures.charge_and_spin`.
    device : torch.device or str
        Where the tensors go.
    state : bool
        Read charge and spin; otherwise a neutral singlet.

    Raises
    ------
    InvalidStructureError
        For a structure without atoms, positions or a cell that are not finite, periodic
        directions that the lattice vectors do not span, and charges or spins that mean nothing.
    """
    if len(atoms) == 0:
        raise InvalidStructureError(
            "a structure needs at least one atom, but this one is empty; check the file or the "
            "selection that it came from"
        )
    positions = np.array(atoms.positions, dtype=np.float64)
    cell = np.array(atoms.cell.array, dtype=np.float64)
    pbc = np.array(atoms.pbc, dtype=np.bool_)
    check_finite(positions, cell)
    check_cell(cell, pbc, 0)
    charge, spin = charge_and_spin(atoms) if state else (0, 1)
    return System.single(
        positions=torch.from_numpy(positions).to(device),
        numbers=torch.tensor(atoms.numbers, dtype=torch.int64, device=device),
        cell=torch.from_numpy(cell).to(device),
        pbc=torch.from_numpy(pbc).to(device),
        charge=charge,
        spin_multiplicity=spin,
    )


def atoms_from_system(system: System) -> list[Atoms]:
    """One ``ase.Atoms`` for each structure of a batch, without calculator or constraints."""
    structures = []
    for s in range(system.n_systems):
        inside = system.system_index == s
        structures.append(
            Atoms(
                numbers=system.numbers[inside].cpu().numpy(),
                positions=system.positions[inside].detach().cpu().numpy(),
                cell=system.cell[s].detach().cpu().numpy(),
                pbc=system.pbc[s].cpu().numpy(),
            )
        )
    return structures
