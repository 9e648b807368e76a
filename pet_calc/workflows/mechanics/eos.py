r"""Equation of state: energy of a crystal against its volume, and the bulk modulus.

Third-order Birch–Murnaghan [Birch, Phys. Rev. 71, 809 (1947)]:

.. math::

   E(V) = E_0 + \frac{9 V_0 B_0}{16} \left\{ (\eta^2-1)^3 B_0' + (\eta^2-1)^2 (6 - 4\eta^2)
   \right\}, \qquad \eta = (V_0/V)^{1/3}
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.eos import EquationOfState as AseEquationOfState
from ase.eos import birchmurnaghan
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from pet_calc.errors import SimulationError
from pet_calc.units import EV_PER_A3_TO_GPA
from pet_calc.workflows.mechanics.config import EosConfig
from pet_calc.workflows.progress import OnProgress, in_stage
from pet_calc.workflows.relax import RelaxConfig, relax_all
from pet_calc.workflows.relax.many import with_calculator
from pet_calc.workflows.relax.reference import relaxed_reference, require_usable

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BirchMurnaghan:
    """Fitted parameters with their standard errors, which follow from the residuals.

    Attributes
    ----------
    V0, V0_error : float
        Volume of the minimum in Å³.
    E0, E0_error : float
        Energy there in eV.
    B0, B0_error : float
        Bulk modulus there in GPa.
    B0_prime, B0_prime_error : float
        Its derivative with respect to pressure.
    rms : float
        Root mean square of the residuals in eV.
    """

    V0: float
    V0_error: float
    E0: float
    E0_error: float
    B0: float
    B0_error: float
    B0_prime: float
    B0_prime_error: float
    rms: float

    def energy(self, volume: ArrayLike) -> Array:
        """E(V) in eV for volumes in Å³."""
        b = self.B0 / EV_PER_A3_TO_GPA
        return np.asarray(birchmurnaghan(np.asarray(volume), self.E0, b, self.B0_prime, self.V0))

    def pressure(self, volume: ArrayLike) -> Array:
        """−dE/dV in GPa for volumes in Å³."""
        eta = (self.V0 / np.asarray(volume, dtype=float)) ** (1 / 3)
        third = 1.0 + 0.75 * (self.B0_prime - 4.0) * (eta**2 - 1.0)
        return np.asarray(1.5 * self.B0 * (eta**7 - eta**5) * third)


@dataclass(frozen=True, eq=False)
class EquationOfState:
    """Energies of a crystal at several volumes, and the fit to them.

    Attributes
    ----------
    volumes, energies : array, shape (points,)
        In Å³ and eV per cell.
    frames : list of Atoms
        The crystal at each volume, with its results.
    fit : BirchMurnaghan
    """

    volumes: Array
    energies: Array
    frames: list[Atoms]
    fit: BirchMurnaghan


def equation_of_state(
    atoms: Atoms,
    config: EosConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> EquationOfState:
    """Energy against volume of a crystal with a calculator, and the bulk modulus.

    Parameters
    ----------
    atoms : Atoms
        Periodic in three dimensions; not changed.
    config : EosConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of the relaxation at the beginning, then of the
        volumes.

    Raises
    ------
    InvalidStructureError
        If it cannot be relaxed.
    SimulationError
        If a relaxation does not converge, or the minimum lies outside of the volumes.
    """
    config = config or EosConfig()
    start = relaxed_reference(
        atoms,
        config.fmax,
        config.steps,
        relax=config.relax,
        guards=config.guards,
        on_progress=on_progress,
    )
    outcomes = relax_all(
        with_calculator(
            scaled_volumes(start, np.linspace(*config.span, config.points)), atoms.calc
        ),
        RelaxConfig(
            cell=config.cell,
            fmax=config.fmax,
            steps=config.steps if config.relax_ions else 0,
            guards=config.guards,
        ),
        on_progress=in_stage(on_progress, "volumes"),
    )
    frames = [
        require_usable(outcome, f"volume {k + 1} of {config.points}", moves=config.relax_ions)
        for k, outcome in enumerate(outcomes)
    ]
    volumes = np.array([frame.get_volume() for frame in frames])
    energies = np.array([frame.get_potential_energy() for frame in frames])
    return EquationOfState(volumes, energies, frames, fit_birch_murnaghan(volumes, energies))


def scaled_volumes(atoms: Atoms, ratios: Sequence[float] | Array) -> list[Atoms]:
    """Copies with the volume times each of `ratios`, atoms at the same fractions of the cell."""
    copies = []
    for ratio in ratios:
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        copies.append(copy)
    return copies


def fit_birch_murnaghan(volumes: ArrayLike, energies: ArrayLike) -> BirchMurnaghan:
    """Least-squares fit to volumes (Å³) and energies (eV), from where ASE's fit ends.

    Raises
    ------
    SimulationError
        If the energies have no minimum within the volumes.
    """
    v, e = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    # total energies of keV would hide differences of µeV from the fit
    lowest = float(e.min())
    remedy = "start nearer to the minimum, or widen the span"
    if int(e.argmin()) in (int(v.argmin()), int(v.argmax())):
        raise SimulationError(
            f"the energy has no minimum between {v.min():.2f} and {v.max():.2f} Å³: it is lowest "
            f"at {v[e.argmin()]:.2f} Å³; {remedy}"
        )
    try:
        with warnings.catch_warnings(), np.errstate(invalid="raise"):
            warnings.simplefilter("error", OptimizeWarning)
            ase_fit = AseEquationOfState(v, e - lowest, eos="birchmurnaghan")
            ase_fit.fit(warn=False)
            p, covariance = curve_fit(
                birchmurnaghan, v, e - lowest, ase_fit.eos_parameters, xtol=1e-12, ftol=1e-14
            )
    except (RuntimeError, FloatingPointError, OptimizeWarning) as error:
        raise SimulationError(
            f"no equation of state fits the energies of {len(v)} volumes ({error}); {remedy}"
        ) from error
    errors = np.sqrt(np.diag(covariance))
    fit = BirchMurnaghan(
        V0=p[3],
        V0_error=errors[3],
        E0=p[0] + lowest,
        E0_error=errors[0],
        B0=p[1] * EV_PER_A3_TO_GPA,
        B0_error=errors[1] * EV_PER_A3_TO_GPA,
        B0_prime=p[2],
        B0_prime_error=errors[2],
        rms=float(np.sqrt(np.mean((birchmurnaghan(v, *p) - e + lowest) ** 2))),
    )
    if not (v.min() < fit.V0 < v.max()) or not fit.B0 > 0:
        raise SimulationError(
            f"the energy has no minimum between {v.min():.2f} and {v.max():.2f} Å³ (the fit has "
            f"V0 = {fit.V0:.2f} Å³, B0 = {fit.B0:.1f} GPa); {remedy}"
        )
    return fit


def eos_summary(result: EquationOfState) -> dict[str, Any]:
    """Parameters, per cell and per atom, as plain values with units in their names."""
    fit, n = result.fit, len(result.frames[0])
    return {
        "formula": result.frames[0].get_chemical_formula(),
        "n_atoms": n,
        "V0_A3": float(fit.V0),
        "V0_error_A3": float(fit.V0_error),
        "V0_A3_per_atom": float(fit.V0) / n,
        "E0_eV": float(fit.E0),
        "E0_error_eV": float(fit.E0_error),
        "E0_eV_per_atom": float(fit.E0) / n,
        "B0_GPa": float(fit.B0),
        "B0_error_GPa": float(fit.B0_error),
        "B0_prime": float(fit.B0_prime),
        "B0_prime_error": float(fit.B0_prime_error),
        "rms_eV": fit.rms,
    }
