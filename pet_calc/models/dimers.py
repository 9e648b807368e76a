"""Two atoms alone at short distances: what a potential does where it has no data.

A network extrapolates there, and may pull two atoms together. What a potential needs is a floor: no
pair may attract below some share of its bond length, the sum of the covalent radii.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.models.derivatives import evaluate
from pet_calc.models.interface import EnergyModel
from pet_calc.models.pet.repulsion import ShortRangeRepulsion
from pet_calc.models.pet.zbl import covalent_radius

#: Share of the bond length below which no pair may attract.
FLOOR: Final = 0.6
# strengths above this mean that the distances, not the strength, are what is wrong
_STRONGEST: Final = 1e4
# pairs in one evaluation
_AT_ONCE: Final = 16
# a unit vector per line: a network that is not exactly symmetric is examined along several
_DIRECTIONS: Final = ((1.0, 0.0, 0.0), (0.36, 0.48, -0.8), (-0.48, 0.6, 0.64))


@dataclass(frozen=True, eq=False)
class Dimer:
    """A pair of atoms along the distance between them.

    Attributes
    ----------
    numbers : tuple of int
        Atomic numbers of the two.
    distances : Tensor, shape (n,)
        In Å, ascending.
    energy : Tensor, shape (n,)
        In eV, mean over three directions.
    force : Tensor, shape (n,)
        Along the bond in eV/Å, positive where they repel; the least of three directions.
    """

    numbers: tuple[int, int]
    distances: Tensor
    energy: Tensor
    force: Tensor

    @property
    def bond(self) -> float:
        """Sum of the covalent radii in Å."""
        return sum(map(covalent_radius, self.numbers))

    def attraction(self, share: float = FLOOR) -> float:
        """Largest attraction below a share of the bond length in eV/Å; negative if there is none.

        Raises
        ------
        ValueError
            If no distance of the dimer is that short.
        """
        below = self.distances <= share * self.bond
        if not bool(below.any()):
            raise ValueError(f"no distance lies below {share} of the bond of {self.bond:.2f} Å")
        return -float(self.force[below].min())


def dimer(model: EnergyModel, numbers: tuple[int, int], shares: Tensor) -> Dimer:
    """A pair of atoms alone, at distances that are `shares` (n,) of its bond length."""
    return dimers_at_once(model, [numbers], shares)[0]


def dimers_at_once(
    model: EnergyModel, pairs: Sequence[tuple[int, int]], shares: Tensor
) -> list[Dimer]:
    """Several pairs, as `dimer`, in one evaluation of the model."""
    bonds = torch.tensor([sum(map(covalent_radius, p)) for p in pairs], dtype=torch.float64)
    distances = bonds[:, None] * shares.double().sort().values
    system, edges = pairs_of_atoms(pairs, distances, model.cutoff)
    results = evaluate(model, system, edges, stress=False)
    assert results.forces is not None
    directions = torch.tensor(_DIRECTIONS, dtype=torch.float64)
    second = results.forces.reshape(len(pairs), len(directions), -1, 2, 3)[:, :, :, 1]
    along = torch.einsum("pdna,da->pdn", second, directions).min(1).values
    energy = results.energy.reshape(len(pairs), len(directions), -1).mean(1)
    return [Dimer(*x) for x in zip(pairs, distances, energy, along, strict=True)]


def pairs_of_atoms(
    pairs: Sequence[tuple[int, int]], distances: Tensor, cutoff: float
) -> tuple[System, Edges]:
    """One system for each pair, each of three directions and each of its distances, in this order.

    Parameters
    ----------
    pairs : sequence of tuple of int
        Atomic numbers.
    distances : Tensor, shape (n_pairs, n)
        In Å.
    cutoff : float
    """
    directions = torch.tensor(_DIRECTIONS, dtype=torch.float64)
    second = distances[:, None, :, None] * directions[None, :, None, :]
    positions = torch.stack([torch.zeros_like(second), second], dim=3).reshape(-1, 3)
    n = len(positions) // 2
    system = System(
        positions=positions,
        numbers=torch.tensor(pairs).repeat_interleave(n // len(pairs), dim=0).reshape(-1),
        cell=torch.zeros(n, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(n, 3, dtype=torch.bool),
        system_index=torch.arange(n).repeat_interleave(2),
    )
    near = (distances[:, None] < cutoff).expand(-1, len(directions), -1).reshape(-1)
    return system, both_ways(2 * n).select(near.repeat_interleave(2))


def both_ways(n_atoms: int) -> Edges:
    """Edges between atoms 0 and 1, 2 and 3, ..."""
    center = torch.arange(n_atoms)
    return Edges(
        edge_index=torch.stack([center, center ^ 1]),
        cell_shifts=torch.zeros(n_atoms, 3, dtype=torch.int64),
        reverse_edge=center ^ 1,
    )


def dimers(model: EnergyModel, shares: Tensor) -> Iterator[Dimer]:
    """Every pair of the elements that a model covers."""
    pairs = list(combinations_with_replacement(model.atomic_numbers, 2))
    for begin in range(0, len(pairs), _AT_ONCE):
        yield from dimers_at_once(model, pairs[begin : begin + _AT_ONCE], shares)


def make_repulsive(
    model: EnergyModel, repulsion: ShortRangeRepulsion, share: float = FLOOR
) -> list[Dimer]:
    """Raise the strength of a model's repulsion until no pair attracts at short distance.

    The repulsion is zero on every training frame, whatever its strength. It is only raised, by the
    ratio of what is needed to what is there where the pair attracts, and a quarter more.

    Parameters
    ----------
    model : EnergyModel
        Holds `repulsion` among its modules.
    repulsion : ShortRangeRepulsion
    share : float
        Of the bond length, below which no pair may attract.

    Returns
    -------
    list of Dimer
        Those that attract still: the data hold such distances, or ones so near that the
        repulsion has not set in where it would be needed.
    """
    shares = torch.linspace(0.3, share, 41)
    unit = ShortRangeRepulsion(len(repulsion.onset)).to(repulsion.onset.device)
    unit.onset.copy_(repulsion.onset)
    left = []
    place = {z: k for k, z in enumerate(model.atomic_numbers)}
    for found in dimers(model, shares):
        if found.attraction(share) < 0:
            continue
        a, b = (place[z] for z in found.numbers)
        pushes = force_of(unit, (a, b), found.distances)
        attracts = (found.force < 0) & (found.distances <= share * found.bond)
        needed = float((-found.force[attracts] / pushes[attracts]).max())
        now = float(repulsion.strength[a, b])
        raised = min(now + 1.25 * needed, _STRONGEST) if needed < _STRONGEST else now
        repulsion.strength[a, b] = repulsion.strength[b, a] = raised
        again = dimer(model, found.numbers, shares)
        if again.attraction(share) > 0:
            left.append(again)
    return left


def force_of(repulsion: ShortRangeRepulsion, species: tuple[int, int], distances: Tensor) -> Tensor:
    """Force (n,) in eV/Å along the bond, positive where it repels, of the repulsion alone."""
    n = len(distances)
    edges = both_ways(2 * n)
    with torch.enable_grad():
        r = distances.detach().clone().requires_grad_()
        kinds = torch.tensor(species).repeat(n)
        energy = repulsion(kinds, edges, r.repeat_interleave(2)).sum()
        (gradient,) = torch.autograd.grad(energy, r)
    return -gradient
