"""What is asked of a phonon calculation and of the quasi-harmonic approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: A mode is imaginary below -IMAGINARY THz. Interpolation between the q-points that fit into the
#: supercell leaves ripples of a few hundredths of a THz around zero frequency near Γ.
IMAGINARY = 0.05


@dataclass(frozen=True)
class PhononConfig:
    """Settings of a phonon calculation by finite displacements.

    Attributes
    ----------
    relax : bool
        Relax first, keeping the space group; otherwise the structure is taken as it is.
    fixed_cell : bool
        Relax the positions only.
    fmax : float
        Largest force that counts as relaxed, eV/Å (for the cell: volume · stress per atom, eV).
    max_steps : int
        Steps after which a relaxation that goes on is an error.
    symprec : float
        Distance within which atoms count as equivalent, Å.
    supercell : tuple of 3 or 9 int, optional
        Supercell of the structure as given: multiples of its lattice vectors, or a matrix M by
        rows, new vectors = M @ cell. By default the smallest one of `min_length` that has the
        lattice's symmetry.
    min_length : float
        Least distance of an atom from its periodic image in the supercell, Å.
    distance : float
        Displacement, Å.
    displacements : {"reduced", "full"}
        "reduced" displaces as few atoms as the space group allows and rotates the forces; "full"
        displaces every atom of the primitive cell along ±x, ±y and ±z, so that a potential that
        has the symmetry only approximately is averaged over its operations.
    subtract_residual : bool
        Subtract the forces that are left on the atoms of the undisplaced supercell.
    symmetrization : {"symfc", "phonopy"}
        "symfc" projects onto the force constants that have the space group, the permutation
        symmetry and the acoustic sum rule, all at once; "phonopy" imposes the last two in turn.
    mesh : float
        Density of the mesh for density of states and thermal properties: its divisions along a
        reciprocal vector b are `mesh` · |b| / 2π, Å.
    q_spacing : float
        Distance of points along the band path, 1/Å (with 2π).
    t_max, t_step : float
        Thermal properties from 0 K to `t_max` in steps of `t_step`, K.
    batch_atoms : int
        Atoms that go through a model at once.
    """

    relax: bool = True
    fixed_cell: bool = False
    fmax: float = 1e-4
    max_steps: int = 500
    symprec: float = 1e-3
    supercell: tuple[int, ...] | None = None
    min_length: float = 12.0
    distance: float = 0.01
    displacements: Literal["reduced", "full"] = "reduced"
    subtract_residual: bool = True
    symmetrization: Literal["symfc", "phonopy"] = "symfc"
    mesh: float = 100.0
    q_spacing: float = 0.02
    t_max: float = 1000.0
    t_step: float = 10.0
    batch_atoms: int = 1000

    def __post_init__(self) -> None:
        positive = ("fmax", "symprec", "min_length", "distance", "mesh", "q_spacing", "t_step")
        for name in (*positive, "t_max"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        for name in ("max_steps", "batch_atoms"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
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
            ("symmetrization", ("symfc", "phonopy")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class QHAConfig:
    """Settings of the quasi-harmonic approximation; phonons as in `PhononConfig`.

    Attributes
    ----------
    volumes : int
        Number of volumes, at least 5.
    smallest, largest : float
        First and last volume, as a part of the relaxed one.
    eos : {"vinet", "birch_murnaghan", "murnaghan"}
        Equation of state that F(V) is fitted to at each temperature.
    pressure : float
        In GPa, compression positive.
    """

    volumes: int = 9
    smallest: float = 0.96
    largest: float = 1.06
    eos: Literal["vinet", "birch_murnaghan", "murnaghan"] = "vinet"
    pressure: float = 0.0

    def __post_init__(self) -> None:
        if self.volumes < 5:
            raise ValueError(f"`volumes` must be at least 5 for the fit, got {self.volumes}")
        if not 0.5 <= self.smallest < 1.0 < self.largest <= 1.5:
            raise ValueError(
                f"`smallest` and `largest` must enclose the relaxed volume 1 within 0.5 and 1.5, "
                f"got {self.smallest} and {self.largest}"
            )
        if self.eos not in ("vinet", "birch_murnaghan", "murnaghan"):
            raise ValueError(f"`eos` must be vinet, birch_murnaghan or murnaghan, got {self.eos!r}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be a number of GPa, got {self.pressure}")
