r"""Effective-medium theory as an `EnergyModel`: the same energies as those of ASE's EMT.

With r_ij the distance, w the smoothed step at the cutoff and χ_ij = n0_j / n0_i,

.. math::

   \sigma_{1,i} = \sum_j \chi_{ij} e^{-\eta_j (r_{ij} - \beta s_j)} w(r_{ij}), \qquad
   d_i = -\frac{1}{\beta \eta_i} \ln \frac{\sigma_{1,i}}{12 \gamma_{1,i}}

   E_i = E_i^0 (1 + \lambda_i d_i) e^{-\lambda_i d_i} + 6 V_i e^{-\kappa_i d_i}
         - \frac12 \sum_j \left[\phi_{ij} + \phi_{ji}\right] - E_i^0, \qquad
   \phi_{ij} = \frac{V_i}{2 \gamma_{2,i}} \chi_{ij} e^{-\kappa_j (r_{ij} / \beta - s_j)} w(r_{ij})

[K. W. Jacobsen, P. Stoltze and J. K. Nørskov, Surf. Sci. 366, 394 (1996)], in ASE's form. Only the
parameters are ASE's; forces and stress come from `pet_calc.models.derivatives`.
"""

from math import log

import torch
from ase.calculators.emt import beta, parameters
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr

from pet_calc.calculators.base import ModelCalculator

SHELLS = (12, 6, 24)  # neighbors in the first three shells of an fcc crystal


class EffectiveMedium:
    """Effective-medium theory for the elements of ASE's table, in float64.

    Parameters
    ----------
    symbols : iterable of str
        The largest of these atoms sets the cutoff. Elements outside of the table do not count.
    margin : callable
        From the center of the step to the cutoff, in Å.
    """

    atomic_numbers = tuple(sorted(atomic_numbers[s] for s in parameters))
    dtype = torch.float64

    def __init__(self, symbols=tuple(parameters), margin=lambda step: step + 0.5):
        known = [parameters[s] for s in symbols if s in parameters] or list(parameters.values())
        nearest = beta * max(p[1] for p in known) * Bohr  # distance in the fcc crystal
        self.step = nearest * 0.5 * (3**0.5 + 2.0)  # between its third and fourth shell
        self.steepness = log(1e4 - 1.0) / (2.0 * nearest - self.step)
        self.cutoff = margin(self.step)
        rows = torch.zeros(max(self.atomic_numbers) + 1, 7, dtype=torch.float64)
        for symbol, row in parameters.items():
            rows[atomic_numbers[symbol]] = torch.tensor(row, dtype=torch.float64)
        E0, s0, V0, eta, kappa, lam, n0 = rows.unbind(1)
        self.E0, self.V0, self.s0, self.n0 = E0, V0, s0 * Bohr, n0 / Bohr**3
        self.eta, self.kappa, self.lam = eta / Bohr, kappa / Bohr, lam / Bohr
        count = torch.tensor(SHELLS, dtype=torch.float64)
        shells = beta * self.s0[:, None] * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).sqrt()
        beyond = shells - beta * self.s0[:, None]
        weight = count * self.switch(shells) / 12.0
        self.gamma1 = (weight * torch.exp(-self.eta[:, None] * beyond)).sum(1)
        self.gamma2 = (weight * torch.exp(-self.kappa[:, None] / beta * beyond)).sum(1)

    def switch(self, r):
        return torch.sigmoid(-self.steepness * (r - self.step))

    def energies(self, system, edges, vectors):
        numbers = system.numbers
        i, j = edges.edge_index
        a, b = numbers[i], numbers[j]
        r = vectors.square().sum(-1).sqrt()
        w = self.switch(r)
        chi = self.n0[b] / self.n0[a]
        zero = torch.zeros(len(numbers), dtype=torch.float64)

        density = chi * torch.exp(-self.eta[b] * (r - beta * self.s0[b])) * w
        sigma1 = zero.index_add(0, i, density)
        alone = zero.index_add(0, i, torch.ones_like(r)) == 0
        # an atom without neighbors has the first two terms 0; the logarithm must not see it
        ratio = torch.where(alone, 1.0, sigma1 / (12.0 * self.gamma1[numbers]))
        d = -torch.log(ratio) / (beta * self.eta[numbers])
        reduced = self.lam[numbers] * d
        cohesion = self.E0[numbers] * (1.0 + reduced) * torch.exp(-reduced)
        sphere = 6.0 * self.V0[numbers] * torch.exp(-self.kappa[numbers] * d)

        phi_ij = chi * torch.exp(-self.kappa[b] * (r / beta - self.s0[b])) * w
        phi_ji = torch.exp(-self.kappa[a] * (r / beta - self.s0[a])) * w / chi
        pair = self.V0[a] / self.gamma2[a] * phi_ij + self.V0[b] / self.gamma2[b] * phi_ji
        pairs = zero.index_add(0, i, -0.25 * pair)
        return torch.where(alone, 0.0, cohesion + sphere + pairs) - self.E0[numbers]


class EffectiveMediumCalculator(ModelCalculator):
    """`ModelCalculator` with the arguments of ASE's EMT.

    Parameters
    ----------
    asap_cutoff : bool
        The largest atom of the structure sets the cutoff, not the largest of the table.
    """

    def __init__(self, *, asap_cutoff=False):
        super().__init__(skin=0.5)
        self.asap_cutoff = asap_cutoff
        self.models = {}

    def model_for(self, *structures):
        numbers = {z for atoms in structures for z in atoms.numbers.tolist()}
        present = tuple(sorted(numbers)) if self.asap_cutoff else ()
        if present not in self.models:
            self.models[present] = (
                EffectiveMedium([chemical_symbols[z] for z in present], lambda step: 1.045 * step)
                if self.asap_cutoff
                else EffectiveMedium()
            )
        return self.models[present]
