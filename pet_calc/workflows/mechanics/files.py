"""The files of equations of state, elastic constants and minimum-energy paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.results import write_frames, write_summary, write_table
from pet_calc.workflows.mechanics.elastic import AXES, ElasticConstants, elastic_summary
from pet_calc.workflows.mechanics.eos import EquationOfState, eos_summary
from pet_calc.workflows.mechanics.figures import eos_figure, neb_figure
from pet_calc.workflows.mechanics.neb import MinimumEnergyPath, neb_summary

EOS_FILES = ("eos.json", "eos.csv", "eos.extxyz", "eos.png")
ELASTIC_FILES = ("elastic.json", "elastic.csv", "elastic.extxyz")
NEB_FILES = ("neb.json", "neb.csv", "neb.extxyz", "neb.png")


def write_eos(
    result: EquationOfState,
    folder: Path | str,
    *,
    title: str = "",
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write `EOS_FILES` into a folder; those of an earlier run are replaced."""
    folder = _made(folder)
    write_summary(folder / "eos.json", eos_summary(result), origin)
    pressures, fitted = result.fit.pressure(result.volumes), result.fit.energy(result.volumes)
    write_table(
        folder / "eos.csv",
        ("volume_A3", "energy_eV", "fit_eV", "pressure_GPa"),
        zip(
            *(x.tolist() for x in (result.volumes, result.energies, fitted, pressures)), strict=True
        ),
        digits=None,
    )
    write_frames(folder / "eos.extxyz", result.frames, origin)
    save_figure(eos_figure(result, title=title), folder / "eos.png", origin)


def write_elastic(
    result: ElasticConstants, folder: Path | str, *, origin: Mapping[str, Any] | None = None
) -> None:
    """Write `ELASTIC_FILES` into a folder; those of an earlier run are replaced."""
    folder = _made(folder)
    write_summary(folder / "elastic.json", elastic_summary(result), origin)
    write_table(
        folder / "elastic.csv",
        ("stress", "strain", "C_GPa", "error_GPa", "before_symmetrization_GPa"),
        [
            (AXES[i], AXES[j], *(float(m[i, j]) for m in (result.C, result.C_error, result.C_raw)))
            for i in range(6)
            for j in range(6)
        ],
        digits=None,
    )
    write_frames(folder / "elastic.extxyz", [result.crystal], origin)


def write_neb(
    result: MinimumEnergyPath,
    folder: Path | str,
    *,
    title: str = "",
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write `NEB_FILES` into a folder; those of an earlier run are replaced."""
    folder = _made(folder)
    write_summary(folder / "neb.json", neb_summary(result), origin)
    rows = zip(range(len(result.path)), result.path.tolist(), result.energies.tolist(), strict=True)
    write_table(folder / "neb.csv", ("image", "path_A", "energy_eV"), rows, digits=None)
    write_frames(folder / "neb.extxyz", result.frames, origin)
    save_figure(neb_figure(result, title=title), folder / "neb.png", origin)


def _made(folder: Path | str) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
