"""Settings of equations of state, elastic constants and minimum-energy paths."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pet_calc.workflows.guards.config import GuardConfig


@dataclass(frozen=True)
class EosConfig:
    """Settings of an equation of state.

    Attributes
    ----------
    points : int
        Number of volumes, at least 5: four parameters are fitted.
    span : tuple of 2 float
        Smallest and largest volume, relative to the relaxed one.
    relax : bool
        Relax ions and cell first, so that the volumes surround the minimum.
    relax_ions : bool
        Relax the ions at each volume.
    cell : {"fixed", "shape"}
        What the cell may do at each volume; shape: it relaxes at constant volume. With a fixed
        shape, B0 of a crystal that is not cubic is its Voigt average; with a relaxed one, its
        Reuss average.
    fmax : float
        Largest force at the end of a relaxation, eV/Å.
    steps : int
        Maximum number of steps of a relaxation.
    guards : GuardConfig
        Limits that stop a relaxation, as in `RelaxConfig`.
    """

    points: int = 9
    span: tuple[float, float] = (0.94, 1.06)
    relax: bool = True
    relax_ions: bool = field(default=True, metadata={"flag": "--relax-ions/--clamp-ions"})
    cell: Literal["fixed", "shape"] = "fixed"
    fmax: float = 1e-3
    steps: int = 1000
    guards: GuardConfig = field(default_factory=GuardConfig, metadata={"words": "guard"})

    def __post_init__(self) -> None:
        if self.points < 5:
            raise ValueError(f"`points` must be at least 5 for 4 parameters, got {self.points}")
        require_span(self.span)
        if self.cell not in ("fixed", "shape"):
            raise ValueError(f"`cell` must be fixed or shape, got {self.cell!r}")
        if self.cell == "shape" and not self.relax_ions:
            raise ValueError("`cell`='shape' relaxes the ions as well; leave `relax_ions` on")


def require_span(span: tuple[float, float]) -> None:
    """Raise `ValueError` unless a range of volumes encloses the relaxed one."""
    if len(span) != 2 or not 0.5 <= span[0] < 1.0 < span[1] <= 1.5:
        raise ValueError(
            f"`span` must be two parts of the relaxed volume that enclose 1, within 0.5 and 1.5, "
            f"got {span}"
        )


@dataclass(frozen=True)
class ElasticConfig:
    """Settings of elastic constants.

    Attributes
    ----------
    strain : float
        Largest strain, of either sign.
    points : int
        Number of strains of each of the six components, at least 3.
    relax : bool
        Relax ions and cell first. Constants are defined for a crystal without stress.
    relax_ions : bool
        Let the ions follow the strain, or clamp them.
    symmetrize : bool
        Impose the point group of the crystal on the tensor.
    symprec : float
        Distance within which the point group is found, Å.
    fmax : float
        Largest force at the end of a relaxation, eV/Å.
    steps : int
        Maximum number of steps of a relaxation.
    guards : GuardConfig
        Limits that stop a relaxation, as in `RelaxConfig`.
    """

    strain: float = 0.01
    points: int = 5
    relax: bool = True
    relax_ions: bool = field(default=True, metadata={"flag": "--relax-ions/--clamp-ions"})
    symmetrize: bool = True
    symprec: float = 1e-2
    fmax: float = 1e-4
    steps: int = 1000
    guards: GuardConfig = field(default_factory=GuardConfig, metadata={"words": "guard"})

    def __post_init__(self) -> None:
        if not 0 < self.strain < 0.1:
            raise ValueError(f"`strain` must lie between 0 and 0.1, got {self.strain}")
        if self.points < 3:
            raise ValueError(f"`points` must be at least 3 to tell an error, got {self.points}")


@dataclass(frozen=True)
class NebConfig:
    """Settings of a nudged elastic band.

    Attributes
    ----------
    images : int
        Number of images between the end points.
    fmax : float
        Largest force of the band at the end, eV/Å.
    steps : int
        Maximum number of steps of the band, and of the relaxation of each end point.
    spring : float
        Spring constant, eV/Å².
    climb : bool
        Let the highest image climb to the saddle point.
    interpolation : {"idpp", "linear"}
        First path: image-dependent pair potential, or straight lines.
    relax : bool
        Relax the end points first.
    end_fmax : float
        Largest force at the end points, eV/Å.
    """

    images: int = 7
    fmax: float = 0.03
    steps: int = 500
    spring: float = 0.1
    climb: bool = True
    interpolation: Literal["idpp", "linear"] = "idpp"
    relax: bool = True
    end_fmax: float = 0.01

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"`images` must be at least 1, got {self.images}")
        if self.interpolation not in ("idpp", "linear"):
            raise ValueError(f"`interpolation` must be idpp or linear, got {self.interpolation!r}")
        for name in ("fmax", "spring", "end_fmax"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number, got {value}")
        if self.steps < 0:
            raise ValueError(f"`steps` must not be negative, got {self.steps}")
