"""Verlet skin: a neighbor list that is reused while no atom has moved too far.

The list is built at ``cutoff + skin`` and holds every pair within ``cutoff`` as long as no atom
has moved by more than ``skin / 2`` since [Verlet, Phys. Rev. 159, 98 (1967)]. Displacements are
measured on the unwrapped positions, without minimum image: an atom that is wrapped across the
cell counts as moved, since the stored shifts no longer fit it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.neighbors.api import check_finite, neighbor_list


@dataclass(frozen=True, eq=False)
class VerletState:
    """A neighbor list built with a skin, and what it was built for.

    Attributes
    ----------
    system : System
        The system at the time of building.
    edges : Edges
        All pairs within ``cutoff + skin``.
    cutoff, skin : float
        In Å.
    n_builds : int
        How often the list has been built since the first state.
    """

    system: System
    edges: Edges
    cutoff: float
    skin: float
    n_builds: int

    def covers(self, system: System) -> bool:
        """Whether the stored list still holds every pair of `system` within the cutoff."""
        old = self.system
        if (
            system.n_atoms != old.n_atoms
            or system.n_systems != old.n_systems
            or system.device != old.device
            or not torch.equal(system.numbers, old.numbers)
            or not torch.equal(system.system_index, old.system_index)
            or not torch.equal(system.pbc, old.pbc)
            or not torch.equal(system.cell, old.cell)
        ):
            return False
        moved2 = (system.positions - old.positions).square().sum(-1)
        return bool((moved2 <= (0.5 * self.skin) ** 2).all())


def update_verlet(
    state: VerletState | None,
    system: System,
    *,
    cutoff: float,
    skin: float,
    build: Callable[[System, float], Edges] = neighbor_list,
) -> tuple[VerletState, Edges]:
    """Edges of `system` within `cutoff`, from the stored list where it still holds.

    Parameters
    ----------
    state : VerletState or None
        The state that the last call returned; None at first.
    system : System
        The system now.
    cutoff, skin : float
        In Å; a skin of 0 rebuilds at every change.
    build : callable
        Makes the list of a system within a radius.

    Returns
    -------
    state : VerletState
        To be handed to the next call.
    edges : Edges
        Pairs with r < cutoff, equal to those of `neighbor_list`, in the same order.
    """
    if skin < 0:
        raise ValueError(f"`skin` must not be negative, got {skin} Å")
    check_finite(system.positions.detach().cpu().numpy(), system.cell.detach().cpu().numpy())
    usable = state is not None and state.cutoff == cutoff and state.skin == skin
    if state is None or not usable or not state.covers(system):
        n_builds = 1 if state is None else state.n_builds + 1
        edges = build(system, cutoff + skin)
        # a copy: callers such as ASE's integrators move their atoms in place
        state = VerletState(system.detached_copy(), edges, cutoff, skin, n_builds)
    distances2 = edge_vectors(system, state.edges).square().sum(-1)
    return state, state.edges.select(distances2 < cutoff**2)
