"""ASE's Lennard-Jones and Morse potentials as energy models, with ASE's cutoffs and defaults."""

import torch

from pet_calc.calculators.base import ModelCalculator


class Pairs:
    """Half of a function of the distance for each of both atoms, whatever their elements."""

    atomic_numbers = tuple(range(119))  # the first is "X"
    dtype = torch.float64

    def __init__(self, energy, cutoff):
        self.energy = energy
        self.cutoff = float(cutoff)

    def energies(self, system, edges, vectors):
        r = vectors.square().sum(-1).sqrt()
        zero = torch.zeros(system.n_atoms, dtype=torch.float64)
        return zero.index_add(0, edges.edge_index[0], 0.5 * self.energy(r))


class PairCalculator(ModelCalculator):
    def __init__(self, energy, cutoff):
        super().__init__(Pairs(energy, cutoff), skin=0.3)


class LennardJonesCalculator(PairCalculator):
    """Cut off with a shift, as ASE's is by default."""

    def __init__(self, *, sigma=1.0, epsilon=1.0, rc=None):
        rc = 3.0 * sigma if rc is None else rc

        def unshifted(x):
            return 4.0 * epsilon * (x**12 - x**6)

        super().__init__(lambda r: unshifted(sigma / r) - unshifted(sigma / rc), rc)


class MorseCalculator(PairCalculator):
    """Switched off by a quintic between `rcut1` and `rcut2`, both in units of `r0`."""

    def __init__(self, *, epsilon=1.0, rho0=6.0, r0=1.0, rcut1=1.9, rcut2=2.7, **_):
        # ASE ignores other arguments too, and its tests give some

        def energy(r):
            decay = torch.exp(rho0 * (1.0 - r / r0))
            s = (1.0 - (r / r0 - rcut1) / (rcut2 - rcut1)).clamp(0.0, 1.0)
            return epsilon * decay * (decay - 2.0) * s**3 * (6.0 * s * s - 15.0 * s + 10.0)

        super().__init__(energy, rcut2 * r0)
