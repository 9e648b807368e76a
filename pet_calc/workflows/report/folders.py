"""A report of an output folder: which verb wrote it, and what of it goes onto the page."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from pet_calc.errors import InvalidStructureError
from pet_calc.units import K_B
from pet_calc.workflows.md.log import MDLog, drift_per_atom
from pet_calc.workflows.report.page import Picture, Section, Table, Text, flatten, write_report
from pet_calc.workflows.report.viewer import Structures
from pet_calc.workflows.statistics import Estimate, block_mean

Properties = dict[str, tuple[Sequence[float], str]]

REPORT = "report.html"

#: Rows of a CSV file shown on the page.
MOST_ROWS = 60


@dataclass
class _Content:
    """What a kind of folder puts onto the page."""

    title: str
    sections: list[Section] = field(default_factory=list)
    structures: Structures | None = None


def report_folder(
    folder: Path | str,
    path: Path | str | None = None,
    *,
    viewer: bool = True,
    structures: Structures | None = None,
) -> Path:
    """Write the report of a folder of ``pet-calc md``, ``relax``, ``phonons``, ``qha`` or others.

    The folder is recognized by its settings file, such as ``md.toml``. Its figures, its table of
    results, settings, provenance, and structures go onto the page.

    Parameters
    ----------
    folder : Path or str
    path : Path or str, optional
        Of the page; by default ``report.html`` in the folder.
    viewer : bool
        Include the 3-D view, which needs chemiscope.
    structures : Structures, optional
        Shown there instead of those of the folder.

    Raises
    ------
    ValueError
        If the folder holds no output that can be recognized.
    MissingDependencyError
        If chemiscope is needed and not installed.
    """
    folder = Path(folder)
    verb, settings = _settings(folder)
    origin = settings.pop("provenance", None)
    content = KINDS.get(verb, _other)(folder, settings)
    return write_report(
        folder / REPORT if path is None else path,
        content.title,
        content.sections,
        lead=f"pet-calc {verb} · {folder.resolve().name}",
        structures=(structures or content.structures) if viewer else None,
        settings=settings,
        provenance=origin,
    )


def _settings(folder: Path) -> tuple[str, dict[str, Any]]:
    """The verb that wrote a folder, and its settings."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name an output folder of pet-calc")
    found = [p for p in sorted(folder.glob("*.toml")) if p.stem in (*KINDS, *OTHER_VERBS)]
    if not found:
        known = ", ".join(f"{name}.toml" for name in KINDS)
        raise ValueError(
            f"an output folder is recognized by its settings file ({known}), but {folder} has "
            "none of them; name the folder that --out named"
        )
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds output of several verbs ({', '.join(p.name for p in found)}); "
            "give each run a folder of its own"
        )
    try:
        return found[0].stem, tomllib.loads(found[0].read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{found[0]} is malformed: {error}") from error


def _md(folder: Path, settings: dict[str, Any]) -> _Content:
    frames = _frames(folder / "trajectory.traj")
    log = MDLog.read(folder / "log.csv")
    if len(log) == 0:
        raise ValueError(f"{folder / 'log.csv'} holds no samples; the run did not start")
    n_atoms, formula = len(frames[0]), _formula(frames[0])
    discard = float(settings.get("discard", 0.2))
    kept = log.after(discard * log.time[-1])
    rows = [
        ("simulated", f"{log.time[-1] / 1e3:.4g} ps in {log.step[-1]} steps"),
        ("system", f"{formula}, {n_atoms} atoms"),
        ("temperature", f"{block_mean(kept.temperature)} K"),
        ("potential energy", f"{block_mean(kept.potential / n_atoms)} eV/atom"),
        ("drift of the conserved energy", f"{drift_per_atom(kept, n_atoms)} meV/atom/ps"),
    ]
    # columns that some versions of the log have, NaN where they have no meaning
    for name, label, unit in (("density", "density", "g/cm³"), ("pressure", "pressure", "GPa")):
        values = getattr(kept, name, None)
        if values is not None and np.isfinite(values).all():
            rows.append((label, f"{block_mean(values)} {unit}"))
    if np.isfinite(log.ns_per_day[-1]):
        rows.append(("speed", f"{log.ns_per_day[-1]:.3g} ns/day"))
    sections = [
        Section(
            "Results",
            [
                Table(("quantity", "value"), rows),
                Text(
                    f"Averages leave out the first {100 * discard:g} % of the run. Errors are "
                    "standard errors by blocking."
                ),
            ],
        ),
        *_pictures(folder, {"md.png": "Temperature, energies and conserved energy over time."}),
    ]
    return _Content(
        f"Molecular dynamics of {formula}",
        sections,
        Structures(frames, _along(frames), "Click a point of the plot to see its frame."),
    )


def _along(frames: list[Atoms]) -> Properties:
    """Energy and temperature of the frames of a run."""
    properties: Properties = {"frame": (list(range(len(frames))), "")}
    energies = [_energy(a) for a in frames]
    known = [e for e in energies if e is not None]
    if len(known) == len(frames):
        since = [1e3 * (e - known[0]) / len(frames[0]) for e in known]
        properties["potential energy since start"] = (since, "meV/atom")
    if all(a.has("momenta") for a in frames):
        # by 3N degrees of freedom: whether a thermostat keeps the total momentum is not recorded
        hot = [2 * a.get_kinetic_energy() / (3 * len(a) * K_B) for a in frames]
        properties["temperature"] = (hot, "K")
    return properties


def _relax(folder: Path, settings: dict[str, Any]) -> _Content:
    frames = _frames(folder / "relaxed.extxyz")
    energies = [_energy(a) for a in frames]
    properties: Properties = {"structure": (list(range(len(frames))), "")}
    if all(e is not None for e in energies):
        per_atom = [float(e or 0.0) / len(a) for e, a in zip(energies, frames, strict=True)]
        properties["energy per atom"] = (per_atom, "eV")
    one = len(frames) == 1
    return _Content(
        f"Relaxation of {_formula(frames[0]) if one else f'{len(frames)} structures'}",
        [
            Section("Results", [_csv(folder / "relax.csv", transposed=one)]),
            *_pictures(folder),
        ],
        Structures(frames, properties, "As relaxed.", trajectory=False),
    )


def _phonons(folder: Path, settings: dict[str, Any]) -> _Content:
    frames = _frames(folder / "primitive.extxyz")
    sections = _pictures(folder, {"phonons.png": "Band structure and density of states."})
    sections += _summary(folder / "phonons.json")
    if (folder / "points.csv").is_file():
        points = _csv(folder / "points.csv")
        sections.append(Section("Frequencies at special points", [points]))
    return _Content(
        f"Phonons of {_formula(frames[0])}",
        sections,
        Structures(frames[:1], caption="Primitive cell, as relaxed.", trajectory=False),
    )


def _analyze(folder: Path, settings: dict[str, Any]) -> _Content:
    content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = []
    for q in content["quantities"]:
        value, error = (np.nan if q[k] is None else q[k] for k in ("value", "error"))
        rows.append((q["name"], str(Estimate(value, error)), q["unit"], q["note"]))
    items: list[Table | Text] = [Table(("quantity", "value", "unit", "note"), rows)]
    items += [Text(f"Not computed: {k}: {v}") for k, v in content["not_computed"].items()]
    return _Content(
        f"Observables of {content['formula']}", [Section("Results", items), *_pictures(folder)]
    )


def _other(folder: Path, settings: dict[str, Any]) -> _Content:
    """All figures, summaries and tables of a folder, and its structures if there are any."""
    summaries = [s for p in sorted(folder.glob("*.json")) for s in _summary(p)]
    tables = [
        Section(p.stem.replace("_", " ").replace("-", " "), [_csv(p)])
        for p in sorted(folder.glob("*.csv"))
    ]
    files = sorted(p for kind in ("*.traj", "*.extxyz", "*.xyz") for p in folder.glob(kind))
    frames = _frames(files[0]) if files else []
    name = " ".join(sorted(p.stem for p in folder.glob("*.toml") if p.stem in OTHER_VERBS))
    return _Content(
        f"{name} {_formula(frames[0])}" if frames else name,
        [*summaries, *_pictures(folder), *tables],
        Structures(frames, caption=files[0].name) if frames else None,
    )


KINDS: dict[str, Callable[[Path, dict[str, Any]], _Content]] = {
    "md": _md,
    "relax": _relax,
    "phonons": _phonons,
    "analyze": _analyze,
}
"""Settings files that are recognized, without their ending, and what makes their page."""

OTHER_VERBS = ("qha", "elastic", "eos", "neb", "predict")


def _frames(path: Path) -> list[Atoms]:
    if not path.is_file():
        raise ValueError(f"the report needs {path}, which does not exist; the run did not finish")
    try:
        found = read(path, index=":")
    except Exception as error:  # each of ASE's many readers fails in its own way
        raise InvalidStructureError(
            f"{path} cannot be read ({type(error).__name__}: {error})"
        ) from error
    if not found:
        raise InvalidStructureError(f"{path} holds no structure")
    return list(found)


def _energy(atoms: Atoms) -> float | None:
    value = None if atoms.calc is None else atoms.calc.results.get("energy")
    return None if value is None else float(value)


def _formula(atoms: Atoms) -> str:
    return str(atoms.get_chemical_formula(empirical=True))


def _pictures(folder: Path, captions: dict[str, str] | None = None) -> list[Section]:
    items = [
        Picture.from_file(path, (captions or {}).get(path.name, path.stem))
        for path in sorted(folder.glob("*.png"))
    ]
    return [Section("Figures" if len(items) > 1 else "Figure", items)] if items else []


def _csv(path: Path, *, transposed: bool = False) -> Table:
    """The first rows of a CSV file; numbers with six digits, empty columns left out."""
    if not path.is_file():
        raise ValueError(f"the report needs {path}, which does not exist; the run did not finish")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        rows = [[_number(x) for x in row] for row in reader]
    filled = [k for k in range(len(columns)) if any(row[k] != "" for row in rows)]
    columns, rows = [columns[k] for k in filled], [[row[k] for k in filled] for row in rows]
    if transposed and len(rows) == 1:
        return Table(("quantity", "value"), list(zip(columns, rows[0], strict=True)))
    caption = "" if len(rows) <= MOST_ROWS else f"{MOST_ROWS} of {len(rows)} rows of {path.name}"
    return Table(columns, rows[:MOST_ROWS], caption)


def _number(text: str) -> Any:
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() and "." not in text and "e" not in text else value


def _summary(path: Path) -> list[Section]:
    """The scalars of a JSON summary, and short lists of them."""
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return []
    content.pop("provenance", None)
    rows = [(k, v) for k, v in flatten(content) if _short(v)]
    return [Section("Results", [Table(("quantity", "value"), rows)])] if rows else []


def _short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 6 and all(isinstance(x, str | int | float) for x in value)
    return isinstance(value, str | int | float) and value != ""
