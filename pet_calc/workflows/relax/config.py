"""Settings of relaxations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from pet_calc.workflows.guards.config import GuardConfig

OPTIMIZERS: Final = ("fire", "bfgs", "lbfgs")
Cell = Literal["fixed", "free", "isotropic", "shape"]
CELLS: Final = get_args(Cell)


@dataclass(frozen=True)
class RelaxConfig:
    """Settings of a relaxation.

    Attributes
    ----------
    optimizer : {"fire", "bfgs", "lbfgs"}
        Optimizer of ASE, with its defaults.
    cell : {"fixed", "free", "isotropic", "shape"}
        What the cell may do: nothing, all six strains, only change its volume (ASE's
        ``hydrostatic_strain``), or only change its shape at constant volume. The cell is moved by
        ASE's ``FrechetCellFilter``, whose variable is the logarithm of the deformation gradient.
    pressure : float
        External pressure, GPa; compression is positive.
    fmax : float
        Largest force at the end, eV/Å. No row of the gradient with respect to the logarithmic
        strain exceeds it per atom, in eV, either (the criterion of ASE).
    steps : int
        Maximum number of steps of the optimizer.
    seconds : float, optional
        Maximum wall time per structure, s.
    total_seconds : float, optional
        Maximum wall time of all structures together, s.
    symmetrize : bool
        Impose the space group that the start has within `symprec`, and keep it.
    symprec : float
        Distance within which that space group is found, Å.
    volume_factor : float
        Factor of growth or shrinkage of the cell that stops the relaxation.
    batch : bool, optional
        Many structures in one call of the model; by default where that is possible.
    batch_edges : int, optional
        Maximum number of directed neighbor pairs in a batch; by default as for ``evaluate_many``
        of the calculator.
    guards : GuardConfig
        Limits that stop the relaxation: contact, where atoms nearly touch, energy_uncertainty and
        forces_uncertainty, where it leaves the training; see docs/guards.md. The others
        concern dynamics.
    """

    optimizer: Literal["fire", "bfgs", "lbfgs"] = "fire"
    cell: Cell = "fixed"
    pressure: float = 0.0
    fmax: float = 0.01
    steps: int = 500
    seconds: float | None = None
    total_seconds: float | None = None
    symmetrize: bool = False
    symprec: float = 1e-2
    volume_factor: float = 3.0
    batch: bool | None = None
    batch_edges: int | None = None
    guards: GuardConfig = field(default_factory=GuardConfig, metadata={"words": "guard"})

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("cell", CELLS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("fmax", "symprec", "seconds", "total_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        if not math.isfinite(self.volume_factor) or self.volume_factor <= 1:
            raise ValueError(f"`volume_factor` must be above 1, got {self.volume_factor}")
        if self.batch_edges is not None and self.batch_edges < 1:
            raise ValueError(f"`batch_edges` must be at least 1, got {self.batch_edges}")
        if self.steps < 0:
            raise ValueError(f"`steps` must not be negative, got {self.steps}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be a number of GPa, got {self.pressure}")
        if self.pressure != 0 and self.cell in ("fixed", "shape"):
            raise ValueError(
                f"a pressure acts on the volume, which `cell`={self.cell!r} keeps; "
                "use 'free' or 'isotropic', or leave the pressure out"
            )
