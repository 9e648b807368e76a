"""What a relaxation is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

from pet_calc.workflows.guards import GuardSettings

OPTIMIZERS: Final = ("fire", "bfgs", "lbfgs")
CELLS: Final = ("fixed", "free", "isotropic", "shape")


@dataclass(frozen=True)
class RelaxConfig:
    """Settings of a relaxation.

    Attributes
    ----------
    optimizer : {"fire", "bfgs", "lbfgs"}
        ASE's optimizer of that name, with its defaults.
    cell : {"fixed", "free", "isotropic", "shape"}
        What the cell may do: nothing, all six strains, only change its volume (ASE's
        ``hydrostatic_strain``), or only change its shape at constant volume. The cell is moved by
        ASE's ``FrechetCellFilter``, whose variable is the logarithm of the deformation gradient.
    pressure : float
        External pressure in GPa, compression positive.
    fmax : float
        Converged when no atom feels a force above this, in eV/Å, and no row of the gradient with
        respect to the logarithmic strain exceeds it per atom, in eV (the criterion of ASE).
    steps : int
        Most steps of the optimizer.
    seconds : float, optional
        Most wall time per structure.
    fix_symmetry : bool
        Keep the space group that the start has at `symprec`, which is imposed on it first.
    symprec : float
        Distance in Å within which the symmetry to keep is looked for.
    volume_factor : float
        A cell that grows or shrinks by more than this factor stops the relaxation.
    guards : GuardSettings
        Its `contact` stops a relaxation in which atoms nearly touch, and its limits on
        uncertainties one that leaves the training. The others concern dynamics.
    """

    optimizer: Literal["fire", "bfgs", "lbfgs"] = "fire"
    cell: Literal["fixed", "free", "isotropic", "shape"] = "fixed"
    pressure: float = 0.0
    fmax: float = 0.01
    steps: int = 500
    seconds: float | None = None
    fix_symmetry: bool = False
    symprec: float = 1e-2
    volume_factor: float = 3.0
    guards: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("cell", CELLS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("fmax", "symprec", "seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        if not math.isfinite(self.volume_factor) or self.volume_factor <= 1:
            raise ValueError(f"`volume_factor` must be above 1, got {self.volume_factor}")
        if self.steps < 0:
            raise ValueError(f"`steps` must not be negative, got {self.steps}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be a number of GPa, got {self.pressure}")
        if self.pressure != 0 and self.cell in ("fixed", "shape"):
            raise ValueError(
                f"a pressure acts on the volume, which `cell`={self.cell!r} keeps; "
                "use 'free' or 'isotropic', or leave the pressure out"
            )
