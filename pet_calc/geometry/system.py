"""The frozen, batched description of atoms that every model receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.errors import InvalidStructureError


@dataclass(frozen=True, eq=False)
class System:
    """One or several structures, concatenated along the atom axis.

    Attributes
    ----------
    positions : Tensor, shape (n_atoms, 3), float64
        Cartesian positions in Å, unwrapped as given.
    cell : Tensor, shape (n_systems, 3, 3), float64
        Rows are lattice vectors in Å; zero for a structure without a cell; may be left-handed.
    numbers : Tensor, shape (n_atoms,), int64
        Atomic numbers.
    pbc : Tensor, shape (n_systems, 3), bool
        Periodicity along each lattice vector.
    system_index : Tensor, shape (n_atoms,), int64
        The structure that each atom belongs to, non-decreasing.
    """

    positions: Tensor
    cell: Tensor
    numbers: Tensor
    pbc: Tensor
    system_index: Tensor

    def __post_init__(self) -> None:
        n_atoms, n_systems = len(self.numbers), len(self.cell)
        expected = {
            "positions": (n_atoms, 3),
            "cell": (n_systems, 3, 3),
            "numbers": (n_atoms,),
            "pbc": (n_systems, 3),
            "system_index": (n_atoms,),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise InvalidStructureError(
                    f"`{name}` must have shape {shape} ({n_atoms} atoms in {n_systems} systems), "
                    f"got {found}; use System.single(...) for one structure"
                )

    @classmethod
    def single(
        cls,
        positions: Tensor,
        numbers: Tensor,
        cell: Tensor | None = None,
        pbc: Sequence[bool] | Tensor = (False, False, False),
    ) -> System:
        """One structure from its positions, numbers, cell (3, 3) and periodicity (3,)."""
        device = positions.device
        if cell is None:
            cell = torch.zeros(3, 3, dtype=positions.dtype, device=device)
        return cls(
            positions=positions,
            cell=cell.reshape(1, 3, 3),
            numbers=numbers,
            pbc=torch.as_tensor(pbc, dtype=torch.bool, device=device).reshape(1, 3),
            system_index=torch.zeros(len(numbers), dtype=torch.int64, device=device),
        )

    @classmethod
    def concatenate(cls, systems: Sequence[System]) -> System:
        """Join systems into one batch, in the order given."""
        if not systems:
            raise InvalidStructureError("a batch needs at least one system, got none")
        offsets = [0]
        for system in systems:
            offsets.append(offsets[-1] + system.n_systems)
        return cls(
            positions=torch.cat([s.positions for s in systems]),
            cell=torch.cat([s.cell for s in systems]),
            numbers=torch.cat([s.numbers for s in systems]),
            pbc=torch.cat([s.pbc for s in systems]),
            system_index=torch.cat(
                [s.system_index + o for s, o in zip(systems, offsets[:-1], strict=True)]
            ),
        )

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the whole batch."""
        return len(self.numbers)

    @property
    def n_systems(self) -> int:
        """Number of structures in the batch."""
        return len(self.cell)

    @property
    def device(self) -> torch.device:
        """Device that holds the tensors."""
        return self.positions.device

    def detached_copy(self) -> System:
        """The same values in memory of their own, outside of any graph."""
        return System(
            positions=self.positions.detach().clone(),
            cell=self.cell.detach().clone(),
            numbers=self.numbers.clone(),
            pbc=self.pbc.clone(),
            system_index=self.system_index.clone(),
        )

    def to(self, device: torch.device | str) -> System:
        """The same system on another device."""
        return replace(
            self,
            positions=self.positions.to(device),
            cell=self.cell.to(device),
            numbers=self.numbers.to(device),
            pbc=self.pbc.to(device),
            system_index=self.system_index.to(device),
        )
