"""The files of a phonon calculation: tables, summary, phonopy.yaml and figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.results import write_summary, write_table
from pet_calc.workflows.phonons.calculation import PhononResult
from pet_calc.workflows.phonons.figures import phonon_figure, qha_figure
from pet_calc.workflows.phonons.qha import QHAResult
from pet_calc.workflows.phonons.spectrum import Spectrum

PHONON_FILES = (
    "phonopy.yaml",
    "primitive.extxyz",
    "bands.csv",
    "points.csv",
    "dos.csv",
    "thermal.csv",
    "phonons.json",
    "phonons.png",
)
QHA_FILES = ("qha.csv", "volumes.csv", "qha.json", "qha.png")


def write_phonons(
    result: PhononResult,
    folder: Path | str,
    *,
    title: str = "",
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write `PHONON_FILES` into a folder; those of an earlier run are replaced.

    Parameters
    ----------
    result : PhononResult
    folder : Path or str
    title : str
        Of the figure.
    origin : mapping, optional
        From `pet_calc.io.runs.provenance.provenance`, kept in the summary.
    """
    from ase.io import write

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    s = result.spectrum
    result.phonon.save(folder / "phonopy.yaml", settings={"force_constants": True})
    cell = result.primitive.atoms.copy()
    cell.info["energy_eV"] = result.energy
    write(folder / "primitive.extxyz", cell)
    write_bands(s, folder / "bands.csv")
    write_points(s, folder / "points.csv")
    elements = list(s.dos.projected)
    parts = [s.dos.projected[e] for e in elements]
    write_table(
        folder / "dos.csv",
        ["frequency_THz", "total_per_THz", *(f"{e}_per_THz" for e in elements)],
        zip(s.dos.frequency, s.dos.total, *parts, strict=True),
    )
    t = s.thermal
    write_table(
        folder / "thermal.csv",
        [
            "temperature_K",
            "free_energy_eV_per_atom",
            "entropy_J_per_K_mol_atoms",
            "heat_capacity_v_J_per_K_mol_atoms",
        ],
        zip(t.temperature, t.free_energy, t.entropy, t.heat_capacity, strict=True),
    )
    write_summary(folder / "phonons.json", phonon_summary(result), origin)
    save_figure(phonon_figure(s, title=title), folder / "phonons.png", origin)


def write_bands(spectrum: Spectrum, path: Path) -> None:
    """One row for each point of the path; ``segment`` tells the straight parts apart."""
    n = spectrum.segments[0].frequencies.shape[1]
    rows = [
        [k, f"{s.start}-{s.end}", *q, x, *f]
        for k, s in enumerate(spectrum.segments)
        for q, x, f in zip(s.qpoints, s.distance, s.frequencies, strict=True)
    ]
    names = ["segment", "line", "q1", "q2", "q3", "distance_per_A"]
    write_table(path, [*names, *(f"band{i + 1}_THz" for i in range(n))], rows)


def write_points(spectrum: Spectrum, path: Path) -> None:
    """One row for each group of degenerate modes at each special point."""
    rows: list[list[Any]] = []
    for point in spectrum.points:
        for k, group in enumerate(point.groups):
            irrep = point.irreps[k] if point.irreps else ""
            bands = " ".join(str(i + 1) for i in group)
            frequency = point.frequencies[list(group)].mean()
            rows.append([point.label, *point.q, bands, len(group), frequency, irrep, ""])
    for splitting in spectrum.splittings:
        q = spectrum.points[0].q * 0.0
        for i, frequency in enumerate(splitting.frequencies):
            rows.append(["Γ", *q, i + 1, "", frequency, "", splitting.towards])
    names = ["label", "q1", "q2", "q3", "bands", "degeneracy", "frequency_THz", "irrep"]
    write_table(path, [*names, "field_towards"], rows)


def write_qha(
    result: QHAResult,
    folder: Path | str,
    *,
    title: str = "",
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write `QHA_FILES` into a folder; those of an earlier run are replaced."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "temperature_K": result.temperature,
        "volume_A3_per_atom": result.volume,
        "a_A": result.lattice[:, 0],
        "b_A": result.lattice[:, 1],
        "c_A": result.lattice[:, 2],
        "thermal_expansion_per_K": result.thermal_expansion,
        "bulk_modulus_GPa": result.bulk_modulus,
        "gibbs_eV_per_atom": result.gibbs,
        "entropy_J_per_K_mol_atoms": result.entropy,
        "heat_capacity_p_J_per_K_mol_atoms": result.heat_capacity_p,
        "gruneisen": result.gruneisen,
    }
    write_table(folder / "qha.csv", list(columns), zip(*columns.values(), strict=True))
    write_table(
        folder / "volumes.csv",
        ["volume_A3_per_atom", "energy_eV_per_atom", "lowest_frequency_THz"],
        zip(result.volumes, result.energies, result.lowest, strict=True),
    )
    write_summary(folder / "qha.json", qha_summary(result), origin)
    save_figure(qha_figure(result, title=title), folder / "qha.png", origin)


def phonon_summary(result: PhononResult) -> dict[str, Any]:
    """The numbers of a phonon calculation that fit on a page."""
    s, r = result.spectrum, result.report
    return {
        "formula": result.primitive.atoms.get_chemical_formula(),
        "spacegroup": result.primitive.spacegroup,
        "spacegroup_number": result.primitive.number,
        "cell_A": result.primitive.atoms.cell.array.tolist(),
        "energy_eV": result.energy,
        "largest_force_eV_per_A": result.force,
        "supercell_of_primitive": result.supercell.tolist(),
        "supercell_atoms": r.n_atoms,
        "displaced_supercells": r.n_supercells,
        "residual_force_eV_per_A": r.residual_force,
        "residual_force_subtracted": result.config.subtract_residual,
        "symmetrization": result.config.symmetrize,
        "force_constant_largest_eV_per_A2": r.largest,
        "force_constant_asymmetry_eV_per_A2": r.asymmetry,
        "gamma_shift_of_symmetrization_THz": r.gamma_shift,
        "force_constant_at_edge": r.edge,
        "lowest_frequency_THz": s.lowest,
        "lowest_frequency_at": s.lowest_place,
        "stable": s.stable,
        "zero_point_energy_eV_per_atom": s.thermal.zero_point_energy,
        "modes_left_out": s.thermal.left_out,
        "points_THz": {p.label: p.frequencies.tolist() for p in s.points},
        "lo_to_splitting_THz": {x.towards: x.largest for x in s.splittings},
        "warnings": list(result.warnings),
    }


def qha_summary(result: QHAResult) -> dict[str, Any]:
    """The numbers of a quasi-harmonic calculation that fit on a page."""
    names = ("volume", "thermal_expansion", "bulk_modulus", "heat_capacity_p", "gruneisen")
    room = 300.0
    known = result.temperature[-1] >= room
    return {
        "formula": result.primitive.atoms.get_chemical_formula(),
        "spacegroup": result.primitive.spacegroup,
        "static": {
            "volume_A3_per_atom": result.static_volume,
            "bulk_modulus_GPa": result.static_bulk_modulus,
            "b_prime": result.static_b_prime,
        },
        "at_300_K": {name: result.at(room, name) for name in names} if known else None,
        "equation_of_state_residual_eV_per_atom": result.fit_residual,
        "highest_temperature_K": float(result.temperature[-1]),
        "warnings": list(result.warnings),
    }
