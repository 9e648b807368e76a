"""The frozen, batched description of atoms that every model receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

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
    charge : Tensor, shape (n_systems,), int64
        Total charge in elementary charges; 0 by default.
    spin_multiplicity : Tensor, shape (n_systems,), int64
        2S + 1; 1 by default.
    energy_head : Tensor or None, shape (n_systems,), int64
        Level of theory, as the index of one of the model's energy heads; None for the head that
        the model is read from.
    frame_draw : Tensor or None, shape (n_atoms,)
        Uniform numbers in [0, 1) by which a model with layerwise ECSE takes one local frame of
        each atom instead of all (training).
    """

    positions: Tensor
    cell: Tensor
    numbers: Tensor
    pbc: Tensor
    system_index: Tensor
    charge: Tensor = None  # type: ignore[assignment]
    spin_multiplicity: Tensor = None  # type: ignore[assignment]
    energy_head: Tensor | None = None
    frame_draw: Tensor | None = None

    def __post_init__(self) -> None:
        n_atoms, n_systems = len(self.numbers), len(self.cell)
        for name, default in (("charge", 0), ("spin_multiplicity", 1)):
            if getattr(self, name) is None:
                value = torch.full((n_systems,), default, device=self.numbers.device)
                object.__setattr__(self, name, value)
        expected = {
            "positions": (n_atoms, 3),
            "cell": (n_systems, 3, 3),
            "numbers": (n_atoms,),
            "pbc": (n_systems, 3),
            "system_index": (n_atoms,),
            "charge": (n_systems,),
            "spin_multiplicity": (n_systems,),
            "energy_head": (n_systems,),
            "frame_draw": (n_atoms,),
        }
        for name, tensor in self.tensors.items():
            if tuple(tensor.shape) != expected[name]:
                raise InvalidStructureError(
                    f"`{name}` must have shape {expected[name]} ({n_atoms} atoms in {n_systems} "
                    f"systems), got {tuple(tensor.shape)}; use System.single(...) for one structure"
                )

    @classmethod
    def single(
        cls,
        positions: Tensor,
        numbers: Tensor,
        cell: Tensor | None = None,
        pbc: Sequence[bool] | Tensor = (False, False, False),
        *,
        charge: int = 0,
        spin_multiplicity: int = 1,
    ) -> System:
        """One structure from its positions, numbers, cell (3, 3), periodicity (3,) and state."""
        device = positions.device
        if cell is None:
            cell = torch.zeros(3, 3, dtype=positions.dtype, device=device)
        return cls(
            positions=positions,
            cell=cell.reshape(1, 3, 3),
            numbers=numbers,
            pbc=torch.as_tensor(pbc, dtype=torch.bool, device=device).reshape(1, 3),
            system_index=torch.zeros(len(numbers), dtype=torch.int64, device=device),
            charge=torch.full((1,), charge, device=device),
            spin_multiplicity=torch.full((1,), spin_multiplicity, device=device),
        )

    @classmethod
    def concatenate(cls, systems: Sequence[System]) -> System:
        """Join systems into one batch, in the order given.

        Raises
        ------
        InvalidStructureError
            If there are none, or only some of them have an energy head or a draw of frames.
        """
        if not systems:
            raise InvalidStructureError("a batch needs at least one system, got none")
        joined: dict[str, Tensor] = {}
        offset, index = 0, []
        for system in systems:
            index.append(system.system_index + offset)
            offset += system.n_systems
        names = {name for system in systems for name in system.tensors}
        for name in names - {"system_index"}:
            parts = [system.tensors.get(name) for system in systems]
            given = [part for part in parts if part is not None]
            if len(given) < len(parts):
                raise InvalidStructureError(
                    f"either all systems of a batch have `{name}` or none, got {len(given)} of "
                    f"{len(parts)}"
                )
            joined[name] = torch.cat(given)
        return cls(**joined, system_index=torch.cat(index))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fields that are given, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

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
        return System(**{name: t.detach().clone() for name, t in self.tensors.items()})

    def to(self, device: torch.device | str) -> System:
        """The same system on another device."""
        return System(**{name: t.to(device) for name, t in self.tensors.items()})
