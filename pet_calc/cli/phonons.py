"""``pet-calc phonons`` and ``pet-calc qha``: lattice vibrations of a crystal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from pet_calc.cli.options import ConfigOption, Potential, ReportedFolder, Structure
from pet_calc.cli.options_of import options_of
from pet_calc.cli.run import Run
from pet_calc.workflows.phonons.config import PhononConfig, QHAConfig

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.workflows.phonons import PhononResult, QHAResult

PACKAGES = ("phonopy", "symfc", "seekpath", "spglib", "ase", "numpy", "torch")


@dataclass(frozen=True)
class Polar:
    """Of polar insulators.

    Attributes
    ----------
    born : Path, optional
        BORN file of phonopy for the primitive cell: non-analytical correction.
    """

    panel: ClassVar[str] = "Phonons"

    born: Path | None = field(default=None, metadata={"file": "file of Born charges"})


@options_of(out=Path("phonons_out"))
def phonons(
    context: typer.Context,
    structure: Structure,
    settings: Annotated[PhononConfig, "Phonons"],
    potential: Potential,
    folder: ReportedFolder,
    polar: Polar,
    config: ConfigOption = None,
) -> None:
    """Harmonic phonons of a crystal: bands, density of states, thermal properties.

    For example:

      pet-calc phonons silicon.cif --model pet-pbe-alloy

      pet-calc phonons copper.cif --calculator ase.calculators.emt:EMT --supercell "3 3 3"

    Writes phonons.toml (the settings in full), phonons.png, bands.csv, points.csv, dos.csv,
    thermal.csv, phonons.json, primitive.extxyz and phonopy.yaml (phonopy.load reads it, with the
    force constants). Imaginary modes are a result, not an error: they are reported.
    """
    from pet_calc.workflows.phonons.files import PHONON_FILES

    run = Run(context, folder, PHONON_FILES)
    atoms = structure.read(run.console)
    from pet_calc.workflows.phonons import phonons as compute
    from pet_calc.workflows.phonons import write_phonons
    from pet_calc.workflows.progress import ProgressBar

    atoms.calc = potential.load()
    with ProgressBar() as progress:
        result = compute(atoms, settings, born=polar.born, on_progress=progress)
    origin = run.begin(atoms.calc, packages=PACKAGES)
    heading = f"{atoms.get_chemical_formula(empirical=True)}, {result.primitive.spacegroup}"
    write_phonons(result, run.out, title=heading, origin=origin)
    run.console.print(points_table(result))
    run.console.print(phonon_table(result, run))
    run.page()
    run.warn(result.warnings)


@options_of(out=Path("qha_out"))
def qha(
    context: typer.Context,
    structure: Structure,
    settings: Annotated[QHAConfig, "Volumes"],
    potential: Potential,
    folder: ReportedFolder,
    config: ConfigOption = None,
) -> None:
    """Thermal expansion, bulk modulus and heat capacity in the quasi-harmonic approximation.

    For example:

      pet-calc qha copper.cif --calculator ase.calculators.emt:EMT --t-max 800 --span 0.96,1.08

    Phonons at several volumes, an equation of state of the free energy at each temperature. Writes
    qha.toml (the settings in full), qha.csv, volumes.csv, qha.json and qha.png. A volume with
    imaginary modes is refused: its free energy is not defined.
    """
    from pet_calc.workflows.phonons.files import QHA_FILES

    run = Run(context, folder, QHA_FILES)
    atoms = structure.read(run.console)
    from pet_calc.workflows.phonons import quasi_harmonic, write_qha
    from pet_calc.workflows.progress import ProgressBar

    atoms.calc = potential.load()
    with ProgressBar() as progress:
        result = quasi_harmonic(atoms, settings, on_progress=progress)
    origin = run.begin(atoms.calc, packages=PACKAGES)
    heading = f"{atoms.get_chemical_formula(empirical=True)}, {result.primitive.spacegroup}"
    write_qha(result, run.out, title=heading, origin=origin)
    run.console.print(qha_table(result, run))
    run.page()
    run.warn(result.warnings)


def points_table(result: PhononResult) -> Table:
    """Frequencies at the special points, degenerate ones together."""
    from rich.table import Table

    table = Table(title="Frequencies at special points (THz; imaginary ones negative)")
    table.add_column("point")
    table.add_column("q (primitive cell)")
    table.add_column("frequency, degeneracy, symbol at Γ")
    for point in result.spectrum.points:
        modes = []
        for k, group in enumerate(point.groups):
            # + 0.0 turns a rounded -0.0 into 0.0
            mean = round(float(point.frequencies[list(group)].mean()), 3) + 0.0
            times = f"×{len(group)}" if len(group) > 1 else ""
            modes.append(f"{mean:.3f}{times}" + (f" {point.irreps[k]}" if point.irreps else ""))
        q = " ".join(f"{round(float(x), 3) + 0.0:.3f}" for x in point.q)
        table.add_row(point.label, q, ", ".join(modes))
    for splitting in result.spectrum.splittings:
        top = ", ".join(f"{x + 0.0:.3f}" for x in splitting.frequencies[3:].round(3))
        table.add_row(
            f"Γ→{splitting.towards}",
            "with the field",
            f"{top}; LO-TO splitting {splitting.largest:.3f}",
        )
    return table


def phonon_table(result: PhononResult, run: Run) -> Table:
    """The closing table of phonons."""
    from rich.table import Table

    s, r = result.spectrum, result.report
    table = Table(title="Phonons", show_header=False)
    table.add_row("largest force in the cell", f"{result.force:.1e} eV/Å")
    table.add_row("supercell", f"{r.n_atoms} atoms, {r.n_supercells} displaced")
    subtracted = "subtracted" if result.config.subtract_residual else "kept"
    table.add_row("residual force in the supercell", f"{r.residual_force:.1e} eV/Å, {subtracted}")
    table.add_row(
        "asymmetry removed",
        f"{r.asymmetry:.1e} of {r.largest:.3g} eV/Å²; {r.gamma_shift:.3f} THz at Γ",
    )
    table.add_row("force constants at the edge", f"{100 * r.edge:.2g} % of the largest")
    table.add_row("lowest frequency", f"{s.lowest:.3f} THz at {s.lowest_place}")
    table.add_row("zero-point energy", f"{1e3 * s.thermal.zero_point_energy:.2f} meV/atom")
    table.add_row(f"files in {run.out}", run.files())
    return table


def qha_table(result: QHAResult, run: Run) -> Table:
    """The closing table of the quasi-harmonic approximation."""
    from rich.table import Table

    last = float(result.temperature[-1])
    shown = [t for t in (100.0, 300.0, 600.0, 1000.0) if t <= last] or [last]
    table = Table(title="Quasi-harmonic approximation")
    for name in ("", "static", *(f"{t:g} K" for t in shown)):
        table.add_column(name)
    rows = (
        ("volume (Å³/atom)", "volume", f"{result.static_volume:.4f}", 1.0, "{:.4f}"),
        ("thermal expansion (10⁻⁶/K)", "thermal_expansion", "", 1e6, "{:.2f}"),
        ("bulk modulus (GPa)", "bulk_modulus", f"{result.static_bulk_modulus:.2f}", 1.0, "{:.2f}"),
        ("C_p (J/(K mol) of atoms)", "heat_capacity_p", "", 1.0, "{:.3f}"),
        ("Gibbs energy (eV/atom)", "gibbs", "", 1.0, "{:.5f}"),
        ("Grüneisen parameter", "gruneisen", "", 1.0, "{:.3f}"),
    )
    for title, name, static, factor, form in rows:
        values = [form.format(factor * result.at(t, name)) for t in shown]
        table.add_row(title, static, *values)
    table.add_section()
    table.add_row("residual of the fit (meV/atom)", f"{1e3 * result.fit_residual:.3f}")
    table.add_row(f"files in {run.out}", run.files())
    return table
