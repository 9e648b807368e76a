"""Settings of the analysis of a trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

#: Shear viscosity of water at 298.15 K and 0.1 MPa, mPa·s (IAPWS formulation 2008; Huber et al.,
#: J. Phys. Chem. Ref. Data 38, 101 (2009)).
WATER_VISCOSITY: Final = 0.890

#: Lattices whose coordination shells are tabulated.
Crystal = Literal["fcc", "bcc", "hcp", "diamond", "sc"]

#: Quantities that `pet_calc.workflows.observables.analyze` computes.
OBSERVABLE_NAMES: Final = (
    "temperature",
    "density",
    "rdf",
    "hydrogen-bonds",
    "lattice",
    "order",
    "msd",
    "diffusion",
    "vdos",
    "heat-capacity",
    "thermal-expansion",
)


@dataclass(frozen=True)
class AnalysisConfig:
    """Settings of an analysis.

    Attributes
    ----------
    observables : tuple of str, optional
        Observables, by default by composition: temperature, density, rdf, hydrogen-bonds, lattice,
        order, msd, diffusion, vdos, heat-capacity, thermal-expansion.
    interval : float, optional
        Time between frames, fs; by default from the md.toml beside the trajectory. In Python, None
        means that it is unknown, and what depends on it is left out.
    temperature : float, optional
        Temperature, K; by default from the momenta of the frames.
    pressure : float
        Pressure of a run at constant pressure, GPa.
    viscosity : float
        Shear viscosity for the finite-size correction of water's diffusion, mPa·s; the default is
        that of real water at 298 K.
    r_max : float, optional
        Range of g(r), Å; by default half the cell.
    shells : int
        Number of shells of the order parameters, 1 to 3.
    crystal : {"fcc", "bcc", "hcp", "diamond", "sc"}, optional
        Lattice of an alloy; recognized by default.
    fit : tuple of 2 float, optional
        First and last lag of the diffusion fit, fs; by default the last four fifths of the lags.
    resolution : float
        Resolution of the vibrational spectrum, cm⁻¹.
    """

    observables: tuple[str, ...] | None = None
    interval: float | None = None
    temperature: float | None = None
    pressure: float = 0.0
    viscosity: float = WATER_VISCOSITY
    r_max: float | None = None
    shells: int = 2
    crystal: Crystal | None = None
    fit: tuple[float, float] | None = None
    resolution: float = 20.0

    def __post_init__(self) -> None:
        for name in ("interval", "temperature", "viscosity", "r_max", "resolution"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        if not 1 <= self.shells <= 3:
            raise ValueError(f"`shells` must be 1, 2 or 3, got {self.shells}")
        known = get_args(Crystal)
        if self.crystal not in (None, *known):
            raise ValueError(f"`crystal` must be one of {', '.join(known)}, got {self.crystal!r}")
        if self.fit is not None and (len(self.fit) != 2 or not 0 <= self.fit[0] < self.fit[1]):
            raise ValueError(f"`fit` must be a first and a later last lag in fs, got {self.fit}")
        if unknown := sorted(set(self.observables or ()) - set(OBSERVABLE_NAMES)):
            raise ValueError(
                f"observables are {', '.join(OBSERVABLE_NAMES)}; got {', '.join(unknown)} as well"
            )

    def demanded(self) -> set[str]:
        """Observables that the settings ask for, so that their failure is an error."""
        names = set(self.observables or ())
        names |= {"rdf"} if self.r_max is not None else set()
        names |= {"lattice", "order"} if self.crystal is not None else set()
        return names | ({"diffusion"} if self.fit is not None else set())
