"""What is asked of an equation of state, of elastic constants and of a minimum-energy path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pet_calc.workflows.relax.config import RelaxConfig


@dataclass(frozen=True)
class EosConfig:
    """Settings of an equation of state.

    Attributes
    ----------
    points : int
        Number of volumes, at least 5: four parameters are fitted.
    span : float
        The volumes reach from (1 − span) to (1 + span) of the starting one.
    move : {"ions", "shape", "none"}
        What relaxes at each volume: the ions, the ions and the shape of the cell, or nothing. With
        a fixed shape, B0 of a crystal that is not cubic is its Voigt average; with a relaxed one,
        its Reuss average.
    relax_first : bool
        Relax ions and cell before, so that the volumes surround the minimum.
    fmax, steps
        Of the relaxations, see `RelaxConfig`.
    """

    points: int = 9
    span: float = 0.06
    move: Literal["ions", "shape", "none"] = "ions"
    relax_first: bool = True
    fmax: float = 1e-3
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.points < 5:
            raise ValueError(f"`points` must be at least 5 for 4 parameters, got {self.points}")
        if not 0 < self.span < 0.5:
            raise ValueError(f"`span` must lie between 0 and 0.5, got {self.span}")
        if self.move not in ("ions", "shape", "none"):
            raise ValueError(f"`move` must be ions, shape or none, got {self.move!r}")

    @property
    def relaxation(self) -> RelaxConfig:
        """What is done at each volume."""
        return RelaxConfig(
            cell="shape" if self.move == "shape" else "fixed",
            fmax=self.fmax,
            steps=0 if self.move == "none" else self.steps,
        )


@dataclass(frozen=True)
class ElasticConfig:
    """Settings of elastic constants.

    Attributes
    ----------
    strain : float
        Largest strain, of either sign.
    points : int
        Strains for each of the six components, at least 3.
    relax_ions : bool
        Let the ions follow the strain; without it the constants are those of clamped ions.
    relax_first : bool
        Relax ions and cell before. Constants are defined for a crystal without stress.
    symmetrize : bool
        Impose the point group on the tensor.
    symprec : float
        Distance in Å within which the point group is looked for.
    fmax, steps
        Of the relaxations, see `RelaxConfig`.
    """

    strain: float = 0.01
    points: int = 5
    relax_ions: bool = True
    relax_first: bool = True
    symmetrize: bool = True
    symprec: float = 1e-2
    fmax: float = 1e-4
    steps: int = 1000

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
        Images between the end points.
    fmax : float
        Largest force of the band at the end, in eV/Å.
    steps : int
        Most steps of the band, and of the relaxation of each end point.
    spring : float
        Spring constant in eV/Å².
    climb : bool
        Let the highest image climb to the saddle point.
    interpolation : {"idpp", "linear"}
        First path.
    relax_ends : bool
        Relax the end points first.
    end_fmax : float
        Largest force at the end points, in eV/Å.
    """

    images: int = 7
    fmax: float = 0.03
    steps: int = 500
    spring: float = 0.1
    climb: bool = True
    interpolation: Literal["idpp", "linear"] = "idpp"
    relax_ends: bool = True
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
