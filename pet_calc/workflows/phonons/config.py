"""Settings of phonon calculations and of the quasi-harmonic approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from pet_calc.workflows.mechanics.config import require_span
from pet_calc.workflows.relax.config import CELLS, Cell


@dataclass(frozen=True)
class PhononConfig:
    """Settings of a phonon calculation by finite displacements.

    Attributes
    ----------
    relax : bool
        Relax first, keeping the space group; otherwise the structure is taken as it is.
    cell : {"fixed", "free", "isotropic", "shape"}
        What the cell may do in that relaxation; free: six strains, isotropic: volume only, shape:
        at constant volume.
    fmax : float
        Largest force that counts as relaxed, eV/Å (for the cell: volume · stress per atom, eV).
    steps : int
        Maximum number of steps of the relaxation; one that does not converge is an error.
    symprec : float
        Distance within which atoms count as equivalent, Å.
    supercell : tuple of 3 or 9 int, optional
        Supercell of the structure as given, instead of `min_length`: multiples of its lattice
        vectors, or a matrix M by rows, new vectors = M @ cell. By default the smallest one
        of `min_length` that has the lattice's symmetry.
    min_length : float
        Minimum distance of an atom from its periodic image in the supercell, Å.
    distance : float
        Displacement, Å.
    displacements : {"reduced", "full"}
        As few displacements as the space group allows, whose forces are rotated, or full: every
        atom of the primitive cell along ±x, ±y and ±z, so that a potential that has the symmetry
        only approximately is averaged over its operations.
    subtract_residual : bool
        Subtract the forces that are left on the atoms of the undisplaced supercell.
    symmetrize : {"symfc", "phonopy"}
        How symmetry is imposed on the force constants: symfc projects onto those that have the
        space group, the permutation symmetry and the acoustic sum rule, all at once; phonopy
        imposes the last two in turn.
    mesh : float
        Density of the mesh for density of states and thermal properties, Å: its divisions along a
        reciprocal vector b are `mesh` · |b| / 2π.
    q_spacing : float
        Distance of points along the band path, 1/Å (with 2π).
    t_max : float
        Highest temperature of the thermal properties, which begin at 0 K, K.
    t_step : float
        Step of the temperature, K.
    batch_edges : int, optional
        Maximum number of directed neighbor pairs in one call of the model; by default as for
        ``evaluate_many`` of the calculator.
    """

    relax: bool = True
    cell: Cell = "free"
    fmax: float = 1e-4
    steps: int = 500
    symprec: float = 1e-3
    supercell: tuple[int, ...] | None = None
    min_length: float = 12.0
    distance: float = 0.01
    displacements: Literal["reduced", "full"] = "reduced"
    subtract_residual: bool = True
    symmetrize: Literal["symfc", "phonopy"] = "symfc"
    mesh: float = 100.0
    q_spacing: float = 0.02
    t_max: float = 1000.0
    t_step: float = 10.0
    batch_edges: int | None = None

    def __post_init__(self) -> None:
        positive = ("fmax", "symprec", "min_length", "distance", "mesh", "q_spacing", "t_step")
        for name in (*positive, "t_max"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        for name in ("steps", "batch_edges"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if self.distance > 0.3:
            raise ValueError(
                f"`distance` must be small beside a bond, got {self.distance} Å; 0.01 Å is usual"
            )
        if self.supercell is not None and len(self.supercell) not in (3, 9):
            raise ValueError(
                f"`supercell` must be 3 multiples or 9 entries of a matrix by rows, got "
                f"{len(self.supercell)} numbers"
            )
        for name, known in (
            ("displacements", ("reduced", "full")),
            ("cell", CELLS),
            ("symmetrize", ("symfc", "phonopy")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class QHAConfig:
    """Settings of the quasi-harmonic approximation.

    Attributes
    ----------
    points : int
        Number of volumes, at least 5.
    span : tuple of 2 float
        Smallest and largest volume, relative to the relaxed one.
    eos : {"vinet", "birch_murnaghan", "murnaghan"}
        Equation of state that F(V) is fitted to at each temperature.
    pressure : float
        Pressure, GPa; compression is positive.
    phonons : PhononConfig
        Settings of the phonons at each volume; `q_spacing` is not used.
    """

    points: int = 9
    span: tuple[float, float] = (0.96, 1.06)
    eos: Literal["vinet", "birch_murnaghan", "murnaghan"] = "vinet"
    pressure: float = 0.0
    phonons: PhononConfig = field(
        default_factory=PhononConfig,
        metadata={
            "options": {f.name: f.name for f in fields(PhononConfig) if f.name != "q_spacing"},
            "panel": "Phonons",
        },
    )

    def __post_init__(self) -> None:
        if self.points < 5:
            raise ValueError(f"`points` must be at least 5 for the fit, got {self.points}")
        require_span(self.span)
        if self.eos not in ("vinet", "birch_murnaghan", "murnaghan"):
            raise ValueError(f"`eos` must be vinet, birch_murnaghan or murnaghan, got {self.eos!r}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be a number of GPa, got {self.pressure}")
