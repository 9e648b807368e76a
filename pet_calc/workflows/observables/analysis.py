"""Observables of one trajectory: which make sense, their values, and their curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.workflows.observables.config import WATER_VISCOSITY, AnalysisConfig
from pet_calc.workflows.observables.diffusion import (
    cube_edge,
    finite_size_correction,
    self_diffusion,
    site_displacement,
)
from pet_calc.workflows.observables.hydrogen_bonds import hydrogen_bonds
from pet_calc.workflows.observables.order import warren_cowley_series
from pet_calc.workflows.observables.rdf import partial_rdf
from pet_calc.workflows.observables.thermodynamics import (
    CUBIC_CELLS,
    cubic_lattice_constant,
    density,
    heat_capacity,
    kinetic_temperature,
    thermal_expansion,
)
from pet_calc.workflows.observables.trajectory import Trajectory
from pet_calc.workflows.observables.vibrations import vibrational_spectrum
from pet_calc.workflows.observables.water import is_water, water_structure
from pet_calc.workflows.progress import OnProgress, Progress
from pet_calc.workflows.statistics import Estimate, block_mean, is_drifting

Array = NDArray[np.float64]
#: Exponents of the mean-square displacement within which its slope is a diffusion coefficient.
DIFFUSIVE = (0.8, 1.2)
Columns = dict[str, NDArray[np.float64] | list[str]]


@dataclass(frozen=True)
class Quantity:
    """One number of an analysis.

    Attributes
    ----------
    name : str
        Such as ``density``.
    estimate : Estimate
        Value and standard error.
    unit : str
    note : str
        What the reader has to know of it.
    """

    name: str
    estimate: Estimate
    unit: str
    note: str = ""


@dataclass(eq=False)
class Analysis:
    """Results of an analysis.

    Attributes
    ----------
    formula : str
        Of the system.
    n_frames : int
        Frames used.
    config : AnalysisConfig
    quantities : list of Quantity
    tables : dict of str to dict
        Curves by observable: named columns of equal length; a name ends in its unit.
    skipped : dict of str to str
        Observables that could not be computed, and why.
    """

    formula: str
    n_frames: int
    config: AnalysisConfig
    quantities: list[Quantity] = field(default_factory=list)
    tables: dict[str, Columns] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> Estimate:
        """Value and error of a quantity by name."""
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity.estimate
        known = ", ".join(q.name for q in self.quantities)
        raise KeyError(f"no quantity {name!r} was computed; there are {known}")

    def add(self, name: str, estimate: Estimate, unit: str, note: str = "") -> None:
        """Append a quantity."""
        self.quantities.append(Quantity(name, estimate, unit, note))


def analyze(
    frames: Sequence[Atoms],
    config: AnalysisConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Analysis:
    """Compute observables of a trajectory.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Equilibrated frames, equally spaced in time.
    config : AnalysisConfig, optional
        An observable that it does not ask for and that turns out to be impossible is listed in
        ``skipped`` with the reason.
    on_progress : callable, optional
        Called with the `Progress` before each observable is computed; its stage is the name.

    Raises
    ------
    ValueError
        No frames, or an observable asked for that is impossible.
    """
    config = config or AnalysisConfig()
    frames = list(frames)
    if not frames:
        raise ValueError("an analysis needs at least one frame, got none")
    chosen = config.observables or default_observables(frames)
    trajectory = Trajectory(frames, config)
    result = Analysis(
        frames[0].get_chemical_formula(empirical=len(frames[0]) > 50), len(frames), config
    )
    for k, name in enumerate(chosen):
        if on_progress is not None:
            on_progress(Progress(name, k, len(chosen)))
        try:
            OBSERVABLES[name](trajectory, result)
        except ValueError as error:
            if name in config.demanded():
                raise ValueError(f"{name}: {error}") from error
            result.skipped[name] = str(error)
    return result


def default_observables(frames: Sequence[Atoms]) -> list[str]:
    """Observables that make sense: those of water, of a periodic system, or of a cluster."""
    first = frames[0]
    if not first.pbc.all():
        return ["temperature", "diffusion", "vdos", "heat-capacity"]
    if is_water(first):
        chosen = ["temperature", "density", "rdf", "hydrogen-bonds", "diffusion", "vdos"]
    else:
        chosen = ["temperature", "density", "rdf", "lattice"]
        chosen += ["order"] if len(set(first.numbers.tolist())) > 1 else []
        chosen += ["msd", "diffusion", "vdos"]
    chosen.append("heat-capacity")
    if any(np.abs(a.cell.array - first.cell.array).max() > 1e-6 for a in frames):
        chosen.append("thermal-expansion")
    return chosen


def _temperature(t: Trajectory, result: Analysis) -> None:
    found = kinetic_temperature(t.frames)
    if found is None:
        raise ValueError("the frames hold no momenta")
    result.add("temperature", found, "K")


def _density(t: Trajectory, result: Analysis) -> None:
    series = np.array([density(a) for a in t.frames])
    if not t.changing_cell:
        result.add("density", Estimate(float(series[0]), np.nan), "g/cm³", "constant cell")
        return
    result.add("density", block_mean(series), "g/cm³", _equilibrium(series))
    result.tables["density"] = {**_time(t), "density_g_cm3": series}


def _time(t: Trajectory) -> Columns:
    index = np.arange(len(t.frames), dtype=np.float64)
    if t.config.interval is None:
        return {"frame": index}
    return {"time_fs": index * t.config.interval}


def _rdf(t: Trajectory, result: Analysis) -> None:
    if t.water:
        water = water_structure(t.frames, r_max=t.config.r_max)
        curves = [water.g_OO, water.g_OH, water.g_HH]
        peak = water.first_peak
        result.add("g_OO first peak", Estimate(peak.position, peak.position_error), "Å")
        result.add("g_OO first peak height", Estimate(peak.height, peak.height_error), "")
    else:
        counts = {s: t.frames[0].get_chemical_symbols().count(s) for s in t.symbols}
        pairs = [
            (a, b)
            for a, b in combinations_with_replacement(t.symbols, 2)
            if a != b or counts[a] > 1
        ]
        if not pairs:
            raise ValueError("g(r) needs two atoms, but the frames hold one")
        curves = [partial_rdf(t.frames, a, b, r_max=t.config.r_max) for a, b in pairs]
    table: Columns = {"r_A": curves[0].r}
    for curve in curves:
        name = "g_" + "".join(curve.pair)
        table |= {name: curve.g, f"{name}_error": curve.error}
    result.tables["rdf"] = table


def _hydrogen_bonds(t: Trajectory, result: Analysis) -> None:
    bonds = hydrogen_bonds(t.frames)
    result.add("hydrogen bonds per molecule", bonds.per_molecule, "", "r_OO < 3.5 Å, H–O···O < 30°")
    result.tables["hydrogen-bonds"] = {
        "bonds": np.arange(len(bonds.distribution), dtype=np.float64),
        "fraction_of_molecules": bonds.distribution,
    }


def _diffusion(t: Trajectory, result: Analysis) -> None:
    motion = t.motion
    table: Columns = {}
    for symbol in ["O"] if t.water else t.symbols:
        atoms = np.array(t.frames[0].get_chemical_symbols()) == symbol
        found = self_diffusion(motion, atoms, fit=t.config.fit)
        table |= {
            "lag_fs": found.lag,
            f"msd_{symbol}_A2": found.msd,
            f"msd_{symbol}_error_A2": found.error,
        }
        where = f"from {found.fit[0]:g} to {found.fit[1]:g} fs, MSD ~ t^{found.exponent:.2f}"
        low, high = DIFFUSIVE
        if not low < found.exponent < high:
            result.skipped[f"D of {symbol}"] = (
                f"{where}, which is no diffusion (1): analyze a longer run, or later lags; atoms "
                "bound to sites (0) have no diffusion coefficient"
            )
            continue
        result.add(f"D of {symbol}", found.coefficient, "10⁻⁹ m²/s", where)
        if t.water:
            _correct_diffusion(t, result, found.coefficient)
    result.tables["diffusion"] = table


def _correct_diffusion(t: Trajectory, result: Analysis, found: Estimate) -> None:
    name = "D of O, infinite size"
    try:
        correction = finite_size_correction(
            t.temperature, cube_edge(t.motion.cells), t.config.viscosity
        )
    except ValueError as error:
        result.skipped[name] = str(error)
        return
    result.add(
        name,
        Estimate(found.value + correction, found.error),
        "10⁻⁹ m²/s",
        f"Yeh-Hummer correction {correction:.3g} with a viscosity of {t.config.viscosity:g} mPa·s"
        + (" (real water, 298 K)" if t.config.viscosity == WATER_VISCOSITY else ""),
    )


def _vdos(t: Trajectory, result: Analysis) -> None:
    found = vibrational_spectrum(t.motion, resolution=t.config.resolution)
    peak = float(found.wavenumber[found.density.argmax()])
    note = f"bins of {found.wavenumber[1]:.3g} cm⁻¹, {found.n_windows} windows"
    note += "; velocities from differences of positions" if found.from_positions else ""
    result.add("VDOS maximum at", Estimate(peak, np.nan), "cm⁻¹", note)
    result.tables["vdos"] = {
        "wavenumber_per_cm": found.wavenumber,
        "frequency_THz": found.frequency,
        "vdos_per_THz": found.density,
        "vdos_error_per_THz": found.error,
        **{f"vdos_{symbol}_per_THz": part for symbol, part in found.elements.items()},
    }


def _lattice(t: Trajectory, result: Analysis) -> None:
    crystal = t.config.crystal or t.shells.crystal
    if crystal not in CUBIC_CELLS:
        raise ValueError(f"a lattice constant is given for cubic crystals, this is {crystal}")
    series = np.asarray(cubic_lattice_constant(t.volumes, len(t.frames[0]), crystal))
    note = f"{crystal}, from the volume per atom"
    if not t.changing_cell:
        note += "; constant cell"
        result.add("lattice constant", Estimate(float(series[0]), np.nan), "Å", note)
        return
    result.add("lattice constant", block_mean(series), "Å", _equilibrium(series, note))
    result.tables["lattice"] = {**_time(t), "a_A": series}


def _order(t: Trajectory, result: Analysis) -> None:
    if len(t.symbols) < 2:
        raise ValueError(f"order parameters need two elements, got {t.symbols[0]}")
    order = warren_cowley_series(t.frames, t.shells)
    fixed = not t.paths.species_change  # one arrangement has no spread to estimate an error from
    rows = []
    for shell, radius in enumerate(order.radii):
        for a, b in combinations_with_replacement(order.symbols, 2):
            estimate = order.estimate(shell, a, b)
            if fixed:
                estimate = Estimate(estimate.value, np.nan)
            rows.append((shell + 1, radius, f"{a}-{b}", estimate))
    result.tables["order"] = {
        "shell": np.array([float(r[0]) for r in rows]),
        "distance_A": np.array([r[1] for r in rows]),
        "pair": [r[2] for r in rows],
        "alpha": np.array([r[3].value for r in rows]),
        "alpha_error": np.array([r[3].error for r in rows]),
    }
    for shell, _, pair, estimate in rows:
        a, b = pair.split("-")
        if a != b:
            note = f"{t.shells.crystal}; negative: the pair attracts"
            note += "; one arrangement, without error" if fixed else ""
            result.add(f"Warren-Cowley {pair}, shell {shell}", estimate, "", note)


def _msd(t: Trajectory, result: Analysis) -> None:
    motion = t.paths
    if motion.species_change:
        raise ValueError("species change places (swap moves); analyze a run without swaps")
    _ = t.shells  # raises unless the atoms stay at the sites of a crystal
    for symbol in t.symbols:
        atoms = np.array(t.frames[0].get_chemical_symbols()) == symbol
        result.add(f"⟨u²⟩ of {symbol}", site_displacement(motion, atoms), "Å²", "about its site")


def _heat_capacity(t: Trajectory, result: Analysis) -> None:
    potential, n_atoms = t.potential, len(t.frames[0])
    _require_thermostat(t, potential)
    variable = t.changing_cell
    found = heat_capacity(
        potential,
        t.temperature,
        n_atoms,
        volumes=t.volumes if variable else None,
        pressure=t.config.pressure,
    )
    name = "heat capacity C_p" if variable else "heat capacity C_V"
    note = "classical nuclei; valid for a canonical thermostat"
    result.add(name, found, "k_B/atom", _equilibrium(potential, note))


def _thermal_expansion(t: Trajectory, result: Analysis) -> None:
    if not t.changing_cell:
        raise ValueError("thermal expansion needs a run at constant pressure; the cell is constant")
    potential = t.potential
    _require_thermostat(t, potential)
    found = thermal_expansion(potential, t.volumes, t.temperature, pressure=t.config.pressure)
    note = _equilibrium(t.volumes)
    result.add("volumetric thermal expansion", found.scaled(1e6), "10⁻⁶/K", note)


def _equilibrium(series: Array, note: str = "") -> str:
    """A note, with a warning if the series that a result comes from has a trend."""
    if not is_drifting(series):
        return note
    return "; ".join(filter(None, [note, "STILL DRIFTING: discard more, or run longer"]))


def _require_thermostat(t: Trajectory, potential: Array) -> None:
    """Energy fluctuations mean a heat capacity only where a thermostat makes them."""
    if all(a.has("momenta") for a in t.frames) and not t.changing_cell and len(t.frames) > 2:
        total = potential + np.array([a.get_kinetic_energy() for a in t.frames])
        if total.std() < 0.2 * potential.std():
            raise ValueError(
                "the total energy is conserved: at constant energy these fluctuations are no "
                "measure of the heat capacity; run with a thermostat"
            )


OBSERVABLES: dict[str, Callable[[Trajectory, Analysis], None]] = {
    "temperature": _temperature,
    "density": _density,
    "rdf": _rdf,
    "hydrogen-bonds": _hydrogen_bonds,
    "lattice": _lattice,
    "order": _order,
    "msd": _msd,
    "diffusion": _diffusion,
    "vdos": _vdos,
    "heat-capacity": _heat_capacity,
    "thermal-expansion": _thermal_expansion,
}
"""Observables by name."""
