"""Readouts: from the features of nodes and edges to energies and other quantities."""

from __future__ import annotations

from torch import nn

from pet_calc.models.pet.activation import SiLU
from pet_calc.models.pet.config import PETConfig


def mlp_head(width: int, hidden: int, components: int) -> nn.Sequential:
    """Linear, SiLU, Linear, SiLU, and a last Linear to the components."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        SiLU(),
        nn.Linear(hidden, hidden),
        SiLU(),
        nn.Linear(hidden, components),
    )


class Readout(nn.Module):
    """The two heads that read one layer: of node features and of edge features."""

    def __init__(self, config: PETConfig, components: int) -> None:
        super().__init__()
        self.node = mlp_head(config.d_node, config.d_head, components)
        self.edge = mlp_head(config.d_pet, config.d_head, components)


def pairs(readouts: nn.ModuleList) -> list[tuple[nn.Sequential, nn.Sequential]]:
    """Node and edge head of each of the readouts."""
    found = []
    for readout in readouts:
        assert isinstance(readout, Readout)
        found.append((readout.node, readout.edge))
    return found
