"""Elements of LAMMPS dumps, which often hold nothing but the numbers of atom types."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.data import atomic_numbers

from pet_calc.errors import InvalidStructureError


def lacks_elements(path: Path | str) -> bool:
    """Whether a file is a LAMMPS text dump with neither an element nor a mass column.

    Readers then take type 1 for hydrogen, type 2 for helium, and so on.
    """
    with Path(path).open("rb") as file:
        if not file.read(14).startswith(b"ITEM: TIMESTEP"):
            return False
        file.seek(0)
        for line in islice(file, 50):
            if line.startswith(b"ITEM: ATOMS"):
                return not {b"element", b"mass"} & set(line.split())
    return False


def name_types(frames: Sequence[Atoms], symbols: Sequence[str]) -> None:
    """Give the atoms of a dump their elements by type, in place; velocities stay.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        As read from a dump with a ``type`` column.
    symbols : sequence of str
        Element of type 1, 2, ...

    Raises
    ------
    InvalidStructureError
        If a type has no element, an element does not exist, or the frames have no types.
    """
    if unknown := [s for s in symbols if s not in atomic_numbers]:
        raise InvalidStructureError(
            f"LAMMPS types must be named by chemical symbols, got {', '.join(unknown)}"
        )
    for atoms in frames:
        if "type" not in atoms.arrays:
            raise InvalidStructureError(
                "elements can be named by type for LAMMPS dumps with a column `type` only; "
                "this file has none"
            )
        types = atoms.arrays["type"]
        if not 1 <= types.min() <= types.max() <= len(symbols):
            raise InvalidStructureError(
                f"every LAMMPS type needs an element, but the dump has types {types.min()} to "
                f"{types.max()}, and {len(symbols)} elements were named"
            )
        velocities = atoms.get_velocities() if atoms.has("momenta") else None
        atoms.set_atomic_numbers([atomic_numbers[symbols[t - 1]] for t in types])
        atoms.set_masses("defaults")
        if velocities is not None:
            atoms.set_velocities(velocities)
