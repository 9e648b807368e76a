"""Do the integrators sample their ensembles? A Lennard-Jones fluid at pairs of states.

    python benchmarks/ensembles.py --out benchmarks/results/ensembles.csv

For each ensemble of `pet-calc md`: mean and standard deviation of the kinetic energy, and the
log ratio of the distributions of energy at two temperatures and of volume at two pressures, each
divided by its exact value; 1 within three standard errors passes. See
`pet_calc.workflows.md.sampling` for the equations. The last rows are controls that must fail:
Berendsen's thermostat, which gives nearly the right temperature and wrong fluctuations, and ASE's
MTKNPT, whose barostat is pulled towards 1.5 times the temperature.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.nvtberendsen import NVTBerendsen
from numpy.typing import NDArray

from pet_calc.workflows.md import MDConfig
from pet_calc.workflows.md.barostats import MartynaTobiasKlein
from pet_calc.workflows.md.ensembles import make_integrator
from pet_calc.workflows.md.sampling import (
    SamplingCheck,
    check_kinetic,
    check_two_pressures,
    check_two_temperatures,
)
from pet_calc.workflows.md.swaps import SwapMoves
from pet_calc.workflows.md.velocities import maxwell_boltzmann

Array = NDArray[np.float64]

EPSILON, SIGMA = 0.01, 3.4  # eV, Å: close to argon
TAU = SIGMA * np.sqrt(39.948 / EPSILON) / units.fs  # fs, the unit of time of Lennard-Jones
TIMESTEP = 0.004 * TAU
KELVIN = EPSILON / units.kB  # the unit of temperature
GPA = EPSILON / SIGMA**3 / units.GPa  # the unit of pressure


class Fluid(Calculator):
    """Lennard-Jones with force and energy shifted to zero at 1.4 sigma; all pairs, in NumPy.

    Krypton (a second species for swap moves) binds to argon 1.5 times as strongly as each to
    itself.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012
    cutoff = 1.4 * SIGMA
    unlike = 1.5

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed; ASE's own comparison takes longer than all these forces."""
        old = self.atoms
        same = old is not None and all(
            np.array_equal(a, b)
            for a, b in (
                (old.positions, atoms.positions),
                (old.cell.array, atoms.cell.array),
                (old.numbers, atoms.numbers),
            )
        )
        return [] if same else list(all_changes)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] = ["energy"],  # noqa: B006
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy, forces and stress."""
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.array
        inverse = np.linalg.inv(cell)
        if 0.5 / np.linalg.norm(inverse, axis=0).max() < self.cutoff:
            raise ValueError("the cell has become narrower than twice the cutoff")
        i, j = np.triu_indices(len(self.atoms), 1)
        s = (self.atoms.positions[j] - self.atoms.positions[i]) @ inverse
        d = (s - np.rint(s)) @ cell
        r = np.sqrt(np.einsum("pa,pa->p", d, d))
        near = r < self.cutoff
        i, j, d, r = i[near], j[near], d[near], r[near]
        e, f = lennard_jones(r)
        e_cut, f_cut = lennard_jones(self.cutoff)
        numbers = self.atoms.numbers
        scale = np.where(numbers[i] == numbers[j], 1.0, self.unlike)
        pair = -(scale * (f - f_cut) / r)[:, None] * d  # force on i
        forces = np.zeros((len(numbers), 3))
        for a in range(3):
            forces[:, a] = np.bincount(i, pair[:, a], len(numbers))
            forces[:, a] -= np.bincount(j, pair[:, a], len(numbers))
        stress = np.einsum("pa,pb->ab", pair, d) / abs(np.linalg.det(cell))
        self.results = {
            "energy": float((scale * (e - e_cut + f_cut * (r - self.cutoff))).sum()),
            "forces": forces,
            "stress": stress.flat[[0, 4, 8, 5, 2, 1]],
        }


def lennard_jones(r: Array | float) -> tuple[Array, Array]:
    """Energy (eV) and -dE/dr (eV/Å) at distances in Å."""
    x = (SIGMA / np.asarray(r)) ** 6
    return 4 * EPSILON * x * (x - 1), 24 * EPSILON * x * (2 * x - 1) / r


@dataclass
class Series:
    """Samples of a run: kinetic and potential energies in eV, volumes in Å³."""

    n_dof: int
    kinetic: list[float] = field(default_factory=list)
    potential: list[float] = field(default_factory=list)
    volume: list[float] = field(default_factory=list)
    cell: list[float] = field(default_factory=list)  # twice the kinetic energy of the cell, eV


def structure(density: float) -> Atoms:
    """32 argon atoms on a face-centered lattice; density in units of sigma."""
    return bulk("Ar", "fcc", a=SIGMA * (4.0 / density) ** (1 / 3), cubic=True) * (2, 2, 2)


def sample(
    ensemble: str,
    temperature: float,
    pressure: float = 0.0,
    *,
    steps: int,
    density: float = 0.7,
    seed: int = 0,
    swaps: bool = False,
    every: int = 5,
) -> Series:
    """Simulate, drop the first tenth, and keep every fifth step; all in Lennard-Jones units."""
    atoms = structure(density)
    if swaps:
        atoms.numbers[::2] = 36
        atoms.set_masses([39.948 if z == 18 else 83.798 for z in atoms.numbers])
    atoms.calc = Fluid()
    rng = np.random.default_rng(seed)
    atoms.set_momenta(maxwell_boltzmann(atoms.get_masses(), temperature * KELVIN, rng))
    n_dof = 3 * len(atoms) - (0 if ensemble == "nvt-langevin" else 3)
    if ensemble == "berendsen":
        integrator = NVTBerendsen(
            atoms,
            TIMESTEP * units.fs,
            temperature_K=temperature * KELVIN,
            taut=0.2 * TAU * units.fs,
        )
    elif ensemble == "ase-mtk-full":
        # ASE counts the degrees of freedom of a moving center of mass as well
        n_dof = 3 * len(atoms)
        atoms.set_momenta(
            maxwell_boltzmann(atoms.get_masses(), temperature * KELVIN, rng, remove_drift=False)
        )
        integrator = MTKNPT(
            atoms,
            TIMESTEP * units.fs,
            temperature_K=temperature * KELVIN,
            pressure_au=pressure * GPA * units.GPa,
            tdamp=0.2 * TAU * units.fs,
            pdamp=0.5 * TAU * units.fs,
        )
    else:
        config = MDConfig(
            ensemble=ensemble,
            timestep=TIMESTEP,
            temperature=temperature * KELVIN,
            pressure=pressure * GPA,
            tau=0.2 * TAU,
            pressure_tau=0.5 * TAU,
            compressibility=0.1 / GPA,
        )
        integrator = make_integrator(atoms, config, rng, n_dof=n_dof)
    moves = SwapMoves(atoms, np.random.default_rng([seed, 1])) if swaps else None
    series = Series(n_dof)
    for step in range(steps):
        integrator.step()
        if moves is not None and step % every == 0:
            moves.run(2, temperature * EPSILON)
        if step >= steps // 10 and step % every == 0:
            series.kinetic.append(atoms.get_kinetic_energy())
            series.potential.append(atoms.get_potential_energy())
            series.volume.append(atoms.get_volume())
            series.cell.append(twice_cell_energy(integrator))
    return series


def twice_cell_energy(integrator: object) -> float:
    """Twice the kinetic energy of a full cell's barostat, eV; 0 where there is none."""
    if isinstance(integrator, MartynaTobiasKlein):
        return integrator.mass * float((integrator.v**2).sum())
    return 2.0 * integrator._get_cell_kinetic_energy() if isinstance(integrator, MTKNPT) else 0.0


# temperatures and pressures in units of Lennard-Jones; a fluid, and for the full cell, whose shape
# a liquid would not hold, a crystal
FLUID = {"temperatures": (1.2, 1.4), "pressures": (1.5, 2.0), "density": 0.65}
CRYSTAL = {"temperatures": (0.2, 0.23), "pressures": (2.0, 3.0), "density": 0.92}


def check_ensemble(ensemble: str, steps: int, *, swaps: bool = False) -> list[SamplingCheck]:
    """All checks of an ensemble, relative to the exact values."""
    if ensemble == "npt-scr":
        steps *= 3  # its volume diffuses and forgets more slowly than that of a barostat with mass
    state = CRYSTAL if "full" in ensemble else FLUID
    (t1, t2), (p1, p2) = state["temperatures"], state["pressures"]
    density = 0.7 if "npt" not in ensemble and "mtk" not in ensemble else state["density"]
    options = {"steps": steps, "density": density, "swaps": swaps}
    first = sample(ensemble, t1, p1, seed=1, **options)
    second = sample(ensemble, t2, p1, seed=2, **options)
    checks = check_kinetic(np.array(first.kinetic), first.n_dof, t1 * KELVIN)
    constant_pressure = "npt" in ensemble or "mtk" in ensemble
    pv = p1 * GPA * units.GPa if constant_pressure else 0.0
    enthalpies = tuple(np.add(s.potential, pv * np.array(s.volume)) for s in (first, second))
    checks.append(check_two_temperatures(enthalpies, (t1 * KELVIN, t2 * KELVIN)))
    if constant_pressure:
        third = sample(ensemble, t1, p2, seed=3, **options)
        checks.append(
            check_two_pressures(
                (np.array(first.volume), np.array(third.volume)),
                (p1 * GPA * units.GPa, p2 * GPA * units.GPa),
                t1 * KELVIN,
            )
        )
    if "full" in ensemble:
        # a symmetric matrix has six degrees of freedom
        kinetic = check_kinetic(0.5 * np.array(first.cell), 6, t1 * KELVIN)
        checks.append(replace(kinetic[0], quantity="mean kinetic energy of the cell"))
    return checks


RUNS = (
    ("nvt-langevin", False),
    ("nvt-bussi", False),
    ("nvt-nhc", False),
    ("nvt-langevin", True),
    ("npt-mtk-iso", False),
    ("npt-mtk-full", False),
    ("npt-scr", False),
    ("berendsen", False),
    ("ase-mtk-full", False),
)
CONTROLS = ("berendsen", "ase-mtk-full")


def main() -> None:
    """Print and write the table; exit with 1 if an ensemble fails or a control passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--only", nargs="+", help="names of ensembles, by default all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows, as_expected = [], True
    for ensemble, swaps in RUNS:
        if options.only and ensemble not in options.only:
            continue
        start = time.process_time()
        name = ensemble + (" + swaps" if swaps else "")
        try:
            checks = check_ensemble(ensemble, options.steps, swaps=swaps)
        except ValueError as error:
            if ensemble not in CONTROLS:
                raise
            print(f"{name}: fails, as it must: {error}", flush=True)
            rows.append([name, "must fail", f"simulation ended: {error}", "", "", ""])
            continue
        passed = all(check.sigmas < 3.0 for check in checks)
        as_expected &= passed != (ensemble in CONTROLS)
        print(f"{name} ({time.process_time() - start:.0f} s): {'pass' if passed else 'FAIL'}")
        for check in checks:
            print(f"    {check}", flush=True)
            rows.append(
                [
                    name,
                    "must fail" if ensemble in CONTROLS else "",
                    check.quantity,
                    f"{check.value:.5f}",
                    f"{check.error:.5f}",
                    f"{check.sigmas:.2f}",
                ]
            )
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ["ensemble", "control", "quantity", "measured_over_exact", "error", "sigmas"]
            )
            writer.writerows(rows)
    sys.exit(0 if as_expected else 1)


if __name__ == "__main__":
    main()
