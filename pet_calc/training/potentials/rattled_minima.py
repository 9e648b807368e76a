r"""Disturbed copies of relaxed structures: no labels, but what is known of any minimum.

A relaxed crystal is a minimum of the energy, so that the energy rises along the way to a disturbed
copy. With a cell h (rows), positions r, a symmetric strain ε and displacements u, the way is

.. math:: h(t) = h (1 + t ε), \quad r(t) = r (1 + t ε) + t u, \quad 0 \le t \le 1

and at its end the energy rises by

.. math:: \frac{dE}{dt} = - \sum_i F_i \cdot d_i + V \sigma : L, \quad
          L = ε (1 + ε)^{-1}, \quad d = u (1 - L)

Of a harmonic crystal this is twice the energy of the disturbance. The loss asks for no more than
what any sound crystal has,

.. math:: \frac{dE}{dt} \ge 9 K V_0 |δ| \min(|δ|, δ_c) + k \sum_i |u_i|^2, \quad δ = tr(ε) / 3

with a bulk modulus K and a force constant k that are lower bounds, and δ_c = 0.03 from which on the
tension of an expanded crystal need not grow; what is above costs nothing. From caesium to diamond
both follow the volume v of an atom as electrostatic energies per volume (e² / a⁴) and per area
(e² / a³) do,

.. math:: K = K_{20} (20 Å^3 / v)^{4/3}, \quad k = k_{20} \, 20 Å^3 / v

Data of relaxed crystals say nothing of the energy elsewhere, and a potential that is trained on
them may find lower energies at volumes that no crystal has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from ase import Atoms, units

from pet_calc.errors import DatasetError
from pet_calc.geometry.cell import voigt_from_matrix
from pet_calc.io.data.datasets import LabeledFrame, LeastRise

#: Volume of an atom in Å³ that the bounds are given for.
VOLUME = 20.0
#: Linear strain from which on the least tension grows no more.
LINEAR = 0.03


@dataclass(frozen=True)
class RestoringConfig:
    """How relaxed structures are disturbed, and how fast their energy rises at least.

    Attributes
    ----------
    compression, expansion : float
        The linear strain δ is drawn uniformly from -compression to expansion.
    shear : float
        Standard deviation of the components of the rest of the strain.
    displacement : float
        Standard deviation of the components of the displacements, in Å.
    bulk_modulus : float
        K of a crystal with 20 Å³ per atom, in GPa.
    force_constant : float
        k of such a crystal, in eV/Å².
    """

    compression: float = 0.06
    expansion: float = 0.1
    shear: float = 0.02
    displacement: float = 0.08
    bulk_modulus: float = 10.0
    force_constant: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ValueError(f"`restoring.{name}` must not be negative, got {value}")
        if self.compression > 0.3:
            raise ValueError(f"`restoring.compression` must be at most 0.3, got {self.compression}")

    def disturb(self, frame: LabeledFrame, where: str, seed: int) -> LabeledFrame:
        """A copy of a relaxed structure that is disturbed, without labels but the least rise.

        Parameters
        ----------
        frame : LabeledFrame
        where : str
            What the frame is called in an error.
        seed : int
            The same seed disturbs in the same way.

        Raises
        ------
        DatasetError
            If the structure is not periodic in three dimensions.
        """
        if not frame.atoms.pbc.all():
            raise DatasetError(
                f"`restoring` needs structures that are periodic in three dimensions, but {where} "
                f"is not"
            )
        generator = np.random.default_rng((seed, 5))
        delta = generator.uniform(-self.compression, self.expansion)
        shear = self.shear * generator.standard_normal((3, 3))
        shear = 0.5 * (shear + shear.T)
        strain = (delta - np.trace(shear) / 3) * np.eye(3) + shear
        u = self.displacement * generator.standard_normal((len(frame.atoms), 3))
        if frame.constrained is not None:
            u[frame.constrained] = 0.0
        else:
            u -= u.mean(0)
        atoms = Atoms(
            frame.atoms.numbers,
            frame.atoms.positions @ (np.eye(3) + strain) + u,
            cell=frame.atoms.cell.array @ (np.eye(3) + strain),
            pbc=True,
            info=dict(frame.atoms.info),
        )
        rate = strain @ np.linalg.inv(np.eye(3) + strain)
        volume = frame.atoms.get_volume()
        dense = VOLUME * len(frame.atoms) / volume
        stiffness = self.bulk_modulus * units.GPa * dense ** (4 / 3)
        least = 9 * stiffness * volume * abs(delta) * min(abs(delta), LINEAR)
        least += self.force_constant * dense * float(np.sum(u**2))
        strain_rate = voigt_from_matrix(torch.from_numpy(rate)).numpy()
        rise = LeastRise(u - u @ rate, strain_rate, least)
        return LabeledFrame(atoms, None, None, None, level=frame.level, rise=rise)
