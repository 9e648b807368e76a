"""``pet-calc phonons`` and ``pet-calc qha``: lattice vibrations of a crystal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_calc.cli.inputs import (
    CalculatorOption,
    ConfigOption,
    Direct,
    DirectOption,
    Ecse,
    EcseOption,
    VariantOption,
    make_calculator,
    plain,
    read_structure,
)
from pet_calc.cli.options import DeviceOption, ModelOption, OverwriteOption, ReportOption, page

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console
    from rich.table import Table

    from pet_calc.workflows.phonons import PhononConfig, PhononResult, QHAResult

PACKAGES = ("phonopy", "symfc", "seekpath", "spglib", "ase", "numpy", "torch")


class Precision(StrEnum):
    """Floating-point types of the potential."""

    float32 = "float32"
    float64 = "float64"


class Displacements(StrEnum):
    """See :class:`pet_calc.workflows.phonons.PhononConfig`."""

    reduced = "reduced"
    full = "full"


class Cell(StrEnum):
    """See :class:`pet_calc.workflows.phonons.PhononConfig`."""

    fixed = "fixed"
    free = "free"
    isotropic = "isotropic"
    shape = "shape"


class Symmetrization(StrEnum):
    """See :class:`pet_calc.workflows.phonons.PhononConfig`."""

    symfc = "symfc"
    phonopy = "phonopy"


class EquationOfState(StrEnum):
    """See :class:`pet_calc.workflows.phonons.QHAConfig`."""

    vinet = "vinet"
    birch_murnaghan = "birch_murnaghan"
    murnaghan = "murnaghan"


StructureArgument = Annotated[
    Path,
    typer.Argument(
        help="Crystal in any format that ASE reads; its last frame is used.", show_default=False
    ),
]
DtypeOption = Annotated[
    Precision | None,
    typer.Option(help="Precision of the potential.  [default: float64]", show_default=False),
]
RelaxOption = Annotated[
    bool, typer.Option("--relax/--no-relax", help="Relax first, keeping the space group.")
]
CellOption = Annotated[
    Cell, typer.Option(help="free: six strains; isotropic: volume only; shape: at constant volume.")
]
FmaxOption = Annotated[float, typer.Option(help="Largest force after relaxation, eV/Å.")]
StepsOption = Annotated[int, typer.Option(help="Steps of the relaxation.")]
SymprecOption = Annotated[float, typer.Option(help="Tolerance of the symmetry search, Å.")]
SupercellOption = Annotated[
    str | None,
    typer.Option(
        help='Supercell of the given cell: "2 2 2", or nine numbers of a matrix by rows; '
        "overrides --min-length.",
        show_default=False,
    ),
]
MinLengthOption = Annotated[
    float, typer.Option(help="Least distance of an atom from its image in the supercell, Å.")
]
DistanceOption = Annotated[float, typer.Option(help="Displacement, Å.")]
DisplacementsOption = Annotated[
    Displacements,
    typer.Option(help="As few as symmetry allows, or full: averages a potential that breaks it."),
]
ResidualOption = Annotated[
    bool,
    typer.Option(
        "--subtract-residual/--keep-residual",
        help="Subtract the forces of the undisplaced supercell.",
    ),
]
SymmetrizationOption = Annotated[
    Symmetrization,
    typer.Option(help="symfc imposes all symmetries at once; phonopy those of translation."),
]
MeshOption = Annotated[float, typer.Option(help="Density of the q-point mesh, Å.")]
TMaxOption = Annotated[float, typer.Option("--t-max", help="Highest temperature, K.")]
TStepOption = Annotated[float, typer.Option("--t-step", help="Step of temperature, K.")]
BatchOption = Annotated[
    int | None,
    typer.Option(help="Most neighbor pairs in one call of the model.", show_default=False),
]


def phonons(
    structure: StructureArgument,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    config: ConfigOption = None,
    relax: RelaxOption = True,
    cell: CellOption = Cell.free,
    fmax: FmaxOption = 1e-4,
    steps: StepsOption = 500,
    symprec: SymprecOption = 1e-3,
    supercell: SupercellOption = None,
    min_length: MinLengthOption = 12.0,
    distance: DistanceOption = 0.01,
    displacements: DisplacementsOption = Displacements.reduced,
    subtract_residual: ResidualOption = True,
    symmetrize: SymmetrizationOption = Symmetrization.symfc,
    mesh: MeshOption = 100.0,
    q_spacing: Annotated[float, typer.Option(help="Spacing of points on the path, 1/Å.")] = 0.02,
    t_max: TMaxOption = 1000.0,
    t_step: TStepOption = 10.0,
    batch_edges: BatchOption = None,
    born: Annotated[
        Path | None,
        typer.Option(
            help="BORN file of phonopy for the primitive cell: non-analytical correction.",
            show_default=False,
        ),
    ] = None,
    report: ReportOption = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("phonons_out"),
    overwrite: OverwriteOption = False,
) -> None:
    """Harmonic phonons of a crystal: bands, density of states, thermal properties.

    For example:

      pet-calc phonons silicon.cif --model pet-pbe-alloy

      pet-calc phonons copper.cif --calculator ase.calculators.emt:EMT --supercell "3 3 3"

    Writes phonons.toml (the settings in full), phonons.png, bands.csv, points.csv, dos.csv,
    thermal.csv, phonons.json, primitive.extxyz and phonopy.yaml (phonopy.load reads it, with the
    force constants). Imaginary modes are a result, not an error: they are reported.
    """
    from rich.console import Console

    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.phonons import (
        PHONON_FILES,
        PhononConfig,
        write_phonons,
    )
    from pet_calc.workflows.phonons import phonons as compute
    from pet_calc.workflows.report import REPORT, require_viewer

    console = Console()
    if report:
        require_viewer()
    names = ("phonons.toml", *PHONON_FILES)
    claim_folder(out, (*names, REPORT), overwrite=overwrite)
    settings = PhononConfig(
        relax=relax,
        cell=cell.value,
        fmax=fmax,
        steps=steps,
        symprec=symprec,
        supercell=parse_supercell(supercell),
        min_length=min_length,
        distance=distance,
        displacements=displacements.value,
        subtract_residual=subtract_residual,
        symmetrize=symmetrize.value,
        mesh=mesh,
        q_spacing=q_spacing,
        t_max=t_max,
        t_step=t_step,
        batch_edges=batch_edges,
    )
    if born is not None and not born.is_file():
        raise ValueError(f"there is no file of Born charges {born}")
    atoms = read_structure(structure)
    atoms.calc = potential(model, calculator, device, dtype, ecse, variant, non_conservative)
    announce(console, structure, atoms)
    with stages("supercells") as (say, progress):
        result = compute(atoms, settings, born=born, on_stage=say, on_progress=progress)
    clear_folder(out, (*names, REPORT))
    origin = provenance(atoms.calc, packages=PACKAGES)
    inputs = described(structure, model, calculator, atoms)
    inputs |= {"ecse": plain(ecse), "variant": variant, "non_conservative": plain(non_conservative)}
    files = {"born": born, "report": report, "out": out}
    title = "settings of pet-calc phonons"
    (out / "phonons.toml").write_text(
        settings_toml(title, {**inputs, **flags(settings), **files}, origin), encoding="utf-8"
    )
    heading = f"{atoms.get_chemical_formula(empirical=True)}, {result.primitive.spacegroup}"
    write_phonons(result, out, title=heading, origin=origin)
    console.print(points_table(result))
    console.print(phonon_table(result, out, names))
    page(out, report, console)
    warn(console, result.warnings)


def qha(
    structure: StructureArgument,
    model: ModelOption = "auto",
    calculator: CalculatorOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    ecse: EcseOption = None,
    variant: VariantOption = None,
    non_conservative: DirectOption = None,
    config: ConfigOption = None,
    points: Annotated[int, typer.Option(help="Number of volumes, at least 5.")] = 9,
    span: Annotated[
        tuple[float, float],
        typer.Option(help="First and last volume, as parts of the relaxed one."),
    ] = (0.96, 1.06),
    eos: Annotated[
        EquationOfState, typer.Option(help="Equation of state of F(V).")
    ] = EquationOfState.vinet,
    pressure: Annotated[float, typer.Option(help="Pressure, GPa.")] = 0.0,
    relax: RelaxOption = True,
    cell: CellOption = Cell.free,
    fmax: FmaxOption = 1e-4,
    steps: StepsOption = 500,
    symprec: SymprecOption = 1e-3,
    supercell: SupercellOption = None,
    min_length: MinLengthOption = 12.0,
    distance: DistanceOption = 0.01,
    displacements: DisplacementsOption = Displacements.reduced,
    subtract_residual: ResidualOption = True,
    symmetrize: SymmetrizationOption = Symmetrization.symfc,
    mesh: MeshOption = 100.0,
    t_max: TMaxOption = 1000.0,
    t_step: TStepOption = 10.0,
    batch_edges: BatchOption = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("qha_out"),
    overwrite: OverwriteOption = False,
) -> None:
    """Thermal expansion, bulk modulus and heat capacity in the quasi-harmonic approximation.

    For example:

      pet-calc qha copper.cif --calculator ase.calculators.emt:EMT --t-max 800 --span 0.96 1.08

    Phonons at several volumes, an equation of state of the free energy at each temperature. Writes
    qha.toml (the settings in full), qha.csv, volumes.csv, qha.json and qha.png. A volume with
    imaginary modes is refused: its free energy is not defined.
    """
    from rich.console import Console

    from pet_calc.io.runs.outputs import claim_folder, clear_folder
    from pet_calc.io.runs.provenance import provenance, settings_toml
    from pet_calc.workflows.phonons import (
        QHA_FILES,
        PhononConfig,
        QHAConfig,
        quasi_harmonic,
        write_qha,
    )

    console = Console()
    names = ("qha.toml", *QHA_FILES)
    claim_folder(out, names, overwrite=overwrite)
    settings = PhononConfig(
        relax=relax,
        cell=cell.value,
        fmax=fmax,
        steps=steps,
        symprec=symprec,
        supercell=parse_supercell(supercell),
        min_length=min_length,
        distance=distance,
        displacements=displacements.value,
        subtract_residual=subtract_residual,
        symmetrize=symmetrize.value,
        mesh=mesh,
        t_max=t_max,
        t_step=t_step,
        batch_edges=batch_edges,
    )
    ensemble = QHAConfig(
        points=points, span=span, eos=eos.value, pressure=pressure, phonons=settings
    )
    atoms = read_structure(structure)
    atoms.calc = potential(model, calculator, device, dtype, ecse, variant, non_conservative)
    announce(console, structure, atoms)
    with stages("volumes") as (say, progress):
        result = quasi_harmonic(atoms, ensemble, on_stage=say, on_progress=progress)
    clear_folder(out, names)
    origin = provenance(atoms.calc, packages=PACKAGES)
    used = {**flags(settings), **flags(ensemble)}
    for name in ("q_spacing", "phonons"):
        used.pop(name)
    inputs = described(structure, model, calculator, atoms)
    inputs |= {"ecse": plain(ecse), "variant": variant, "non_conservative": plain(non_conservative)}
    title = "settings of pet-calc qha"
    (out / "qha.toml").write_text(
        settings_toml(title, {**inputs, **used, "out": out}, origin), encoding="utf-8"
    )
    heading = f"{atoms.get_chemical_formula(empirical=True)}, {result.primitive.spacegroup}"
    write_qha(result, out, title=heading, origin=origin)
    console.print(qha_table(result, out, names))
    warn(console, result.warnings)


def parse_supercell(text: str | None) -> tuple[int, ...] | None:
    """Three or nine integers, however they are separated."""
    if text is None:
        return None
    if not re.fullmatch(r"[\s\d,;x\[\]()-]*", text):
        raise ValueError(f'`supercell` must be 3 or 9 whole numbers as in "2 2 2", got {text!r}')
    return tuple(int(x) for x in re.findall(r"-?\d+", text))


def potential(
    model: str,
    factory: str | None,
    device: str | None,
    dtype: Precision | None,
    ecse: Ecse | None,
    variant: str | None,
    non_conservative: Direct | None,
) -> Any:
    """The calculator, in float64 unless asked otherwise."""
    precision = dtype.value if dtype is not None else None
    if factory is None and precision is None:
        precision = "float64"
    return make_calculator(model, factory, device, precision, ecse, variant, non_conservative)


def announce(console: Console, source: Path, atoms: Atoms) -> None:
    """Say what was read."""
    formula = atoms.get_chemical_formula(empirical=len(atoms) > 50)
    console.print(f"{source}: {formula}, {len(atoms)} atoms", highlight=False)


def flags(settings: PhononConfig | Any) -> dict[str, Any]:
    """A configuration under the names of the flags."""
    from dataclasses import asdict

    values = asdict(settings)
    if values.get("supercell") is not None:
        values["supercell"] = " ".join(str(n) for n in values["supercell"])
    return values


def described(structure: Path, model: str, factory: str | None, atoms: Atoms) -> dict[str, Any]:
    """The inputs under the names of the flags; what the calculator chose by itself is filled in."""
    if factory is not None:
        return {"structure": structure, "calculator": factory}
    recorded = atoms.calc.todict()
    # the name of a shipped potential that "auto" chose; a path stays a path
    chosen = recorded.get("model", model) if model == "auto" else model
    return {
        "structure": structure,
        "model": chosen,
        "device": recorded.get("device"),
        "dtype": recorded.get("dtype"),
    }


@contextmanager
def stages(unit: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """A line for each part of the work, and a bar over the supercells or volumes."""
    from pet_calc.workflows.progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task(unit, total=None)

        def say(text: str) -> None:
            bar.console.print(f"  {text}", highlight=False, markup=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield say, progress


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


def phonon_table(result: PhononResult, out: Path, names: tuple[str, ...]) -> Table:
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
    table.add_row(f"files in {out}", "\n".join(names))
    return table


def qha_table(result: QHAResult, out: Path, names: tuple[str, ...]) -> Table:
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
    table.add_row(f"files in {out}", "\n".join(names))
    return table


def warn(console: Console, warnings: tuple[str, ...]) -> None:
    """Print what a user should know before using the numbers."""
    for text in warnings:
        console.print(f"Warning: {text}", style="yellow", markup=False, highlight=False)
