r"""Several networks of one kind as one property model, with its uncertainty and its domain.

The value is the mean over the members. What is known of its error are the distance d of the
features from those of the training (LLPR), the scale b that the members learnt, if they do, and
the spread s of the members. The standard deviation is a product of powers of them,

.. math:: \sigma_t = \exp(c_0 + c_d \ln d + c_b \ln b_t + c_s \ln s_t)

whose exponents are fitted to errors on crystals that were not trained on.

A potential whose energy per atom e estimates a target as well (`PotentialTerm`) has a say in it:
networks on graphs of neighbors and potentials err differently, and their mean errs less [stacked
generalization, Wolpert, Neural Networks 5, 241 (1992)]. With a weight w fitted on held-out crystals
the value is :math:`(1 - w) y + w e`, and s the distance of the two, with
:math:`s^2 = (e - y)^2 + (m / 100)^2` for targets that vary by m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pet_calc.crystals.models.backbone import Encoding
from pet_calc.crystals.models.graph import CrystalGraph, GraphConfig
from pet_calc.crystals.models.heads import PropertyConfig, PropertyModel

#: Smallest factor that enters a logarithm: a member can agree with another to rounding.
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Answer:
    """Predictions of an ensemble for crystals.

    Attributes
    ----------
    values : Tensor, shape (n_systems, n_targets), float64
        Logarithms and logits where these are learnt.
    factors : Tensor, shape (n_systems, n_targets, 4), float64
        1 and the logarithms of d, b and s (0 where there is none), which the exponents belong to.
    distances : Tensor, shape (n_systems,), float64
        d.
    """

    values: Tensor
    factors: Tensor
    distances: Tensor


class PropertyEnsemble(nn.Module):
    """Members with uncertainty and domain; see the module.

    Parameters
    ----------
    config : PropertyConfig
        Of each member.
    members : int

    Attributes
    ----------
    exponents : Tensor, shape (n_targets, 4), float64
        c_0, c_d, c_b, c_s; NaN until they are fitted.
    distance_limit : Tensor, scalar, float64
        Largest d of a crystal like those of the training.
    volumes : Tensor, shape (n_elements,), float64
        Volume in Å³ that an atom of each element takes in the training crystals, on average.
    volume_limits : Tensor, shape (2,), float64
        Between these lies ln(V / sum of those volumes) of a crystal like those of the training.
    potential_weight : Tensor, scalar, float64
        w, if the configuration names a potential.
    """

    exponents: Tensor
    distance_limit: Tensor
    volumes: Tensor
    volume_limits: Tensor
    potential_weight: Tensor

    def __init__(self, config: PropertyConfig, members: int = 1) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(PropertyModel(config) for _ in range(members))
        n = len(config.targets)
        limits = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
        self.register_buffer("exponents", torch.full((n, 4), torch.nan, dtype=torch.float64))
        self.register_buffer("distance_limit", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("volumes", torch.ones(len(config.elements), dtype=torch.float64))
        self.register_buffer("volume_limits", limits)
        if config.potential is not None:
            self.register_buffer("potential_weight", torch.tensor(0.5, dtype=torch.float64))

    @classmethod
    def of(cls, members: Sequence[PropertyModel]) -> PropertyEnsemble:
        """An ensemble of networks; its uncertainty and domain are not fitted yet."""
        with torch.random.fork_rng(devices=[]):
            ensemble = cls(members[0].config, 0)
        ensemble.members = nn.ModuleList(members)
        return ensemble

    @property
    def networks(self) -> list[PropertyModel]:
        """The members."""
        return [m for m in self.members if isinstance(m, PropertyModel)]

    @property
    def graph_config(self) -> GraphConfig:
        """The graphs that the members read."""
        return self.networks[0].encoder.graph_config

    def encode(self, graph: CrystalGraph) -> Encoding:
        """Features of atoms and their means, side by side of all members."""
        found = [m.encode(graph) for m in self.networks]
        return Encoding(
            torch.cat([e.atoms for e in found], dim=1), torch.cat([e.pooled for e in found], dim=1)
        )

    def forward(self, graph: CrystalGraph, energies: Tensor | None = None) -> Answer:
        """Values and what is known of their errors.

        Parameters
        ----------
        graph : CrystalGraph
        energies : Tensor, optional, shape (n_systems,), float64
            Energies per atom in eV of the potential that the configuration names, if it does.
        """
        values, scales, distances = [], [], []
        for network in self.networks:
            features = network.last_features(graph)
            values.append(network.read_out(features))
            scales.append(network.scales(features))
            distances.append(network.distances(features))
        found = torch.stack(values)
        distance = torch.stack(distances).mean(0)
        mean = found.mean(0)
        factors = torch.zeros(*mean.shape, 4, dtype=torch.float64)
        factors[..., 0] = 1.0
        factors[..., 1] = distance.clamp_min(_TINY).log()[:, None]
        if self.config.scales:
            factors[..., 2] = torch.stack(scales).mean(0).log()
        if len(found) > 1:
            factors[..., 3] = found.std(0).clamp_min(_TINY).log()
        term = self.config.potential
        if (term is None) is not (energies is None):
            raise ValueError(
                f"`energies` must be given if the model has a potential, which is "
                f"{'none' if term is None else term.name}"
            )
        if term is not None and energies is not None:
            k = [t.name for t in self.config.targets].index(term.target)
            apart = energies - mean[:, k]
            least = self.networks[0].target_scale[k] / 100
            mean = mean.index_add(
                1, torch.tensor([k]), (self.potential_weight * apart)[:, None].to(mean.dtype)
            )
            factors[:, k, 3] = 0.5 * (apart.square() + least**2).log()
        return Answer(mean, factors, distance)

    def deviations(self, answer: Answer) -> Tensor:
        """σ of the values (n_systems, n_targets); NaN where it is not fitted."""
        return torch.einsum("stf,tf->st", answer.factors, self.exponents).exp()

    def swelling(self, numbers: Tensor, volume: float) -> float:
        """Ln of a crystal's volume in Å³ over that of its atoms in the training crystals."""
        own = self.volumes[self.networks[0].species(numbers)].sum()
        return math.log(volume / float(own))
