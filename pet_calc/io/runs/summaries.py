"""What a file or folder of pet_calc holds, and the record of where it comes from."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pet_calc.errors import InvalidStructureError, OutputError
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.runs.provenance import KEY, record_of


@dataclass(frozen=True)
class Summary:
    """A file or folder in words.

    Attributes
    ----------
    kind : str
        What it is.
    facts : dict
        What it holds, label to plain value.
    origin : dict or None
        Its record of provenance.
    source : str
        Where the record was found, if not in the file itself.
    """

    kind: str
    facts: dict[str, Any]
    origin: dict[str, Any] | None
    source: str = ""


def summarize(path: Path) -> Summary:
    """Read a settings file, a result, a table, structures, a picture, a run or a potential.

    A file that has no record of its own, such as a table, is described by the settings of the run
    in the same folder.

    Raises
    ------
    OutputError
        If there is no such file, or it cannot be read as what its name says.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise OutputError(f"there is no file or folder {path}")
    reader = READERS.get(path.suffix.lower(), _other)
    try:
        found = reader(path)
    except (ValueError, KeyError, OSError) as error:
        raise OutputError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if found.origin is not None:
        return found
    for settings in sorted(path.parent.glob("*.toml")):
        origin = _toml(settings).origin
        if origin is not None:
            return Summary(found.kind, found.facts, origin, f"{settings.name} beside it")
    return found


def _folder(path: Path) -> Summary:
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return _potential(path)
    files = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    for settings in sorted(path.glob("*.toml")):
        found = _toml(settings)
        if found.origin is not None:
            facts = {"files": ", ".join(files), **found.facts}
            return Summary(f"run of pet-calc {settings.stem}", facts, found.origin, settings.name)
    raise OutputError(
        f"{path} is neither a potential ({CONFIG} and {WEIGHTS}) nor a run (a settings file .toml "
        f"with provenance); it holds {_few(files) or 'nothing'}"
    )


def _potential(path: Path) -> Summary:
    # other kinds of files need neither torch nor ASE
    from ase.data import chemical_symbols

    from pet_calc.io.models.weights import read_config

    config = read_config(path)
    settings = dict(config.get("config", {}))
    if isinstance(settings.get("elements"), list):
        settings["elements"] = " ".join(chemical_symbols[z] for z in settings["elements"])
    digest = sha256(path / WEIGHTS)
    recorded = config.get("weights_sha256")
    state = "as recorded" if digest == recorded else f"NOT as recorded ({recorded})"
    facts = {
        "architecture": config.get("architecture"),
        "dtype": config.get("dtype"),
        **_flat(settings),
        "weights": f"{(path / WEIGHTS).stat().st_size / 1e6:.2f} MB",
        "sha256": f"{digest}, {state}",
    }
    training = config.get("training")
    origin = training.get(KEY) if isinstance(training, dict) else None
    return Summary("potential", facts, origin)


def _toml(path: Path) -> Summary:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    origin = values.pop(KEY, None)
    return Summary("settings", _flat(values), origin if isinstance(origin, dict) else None)


def _json(path: Path) -> Summary:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"a result is a JSON object, got {type(values).__name__}")
    origin = values.pop(KEY, None)
    return Summary("result", _flat(values), origin if isinstance(origin, dict) else None)


def _csv(path: Path) -> Summary:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    facts: dict[str, Any] = {"rows": len(rows)}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        try:
            numbers = [float(v) for v in values if v not in ("", None)]
        except ValueError:
            different = [v for v in dict.fromkeys(values) if v]
            facts[name] = _few(different)
        else:
            finite = [x for x in numbers if math.isfinite(x)]
            facts[name] = f"{min(finite):.6g} to {max(finite):.6g}" if finite else "no numbers"
    return Summary("table", facts, None)


def _structures(path: Path) -> Summary:
    from ase.io import read

    try:
        frames = read(path, index=":")
    except Exception as error:  # each of ASE's many readers fails in its own way
        raise InvalidStructureError(str(error)) from error
    formulas = list(dict.fromkeys(a.get_chemical_formula(empirical=len(a) > 50) for a in frames))
    sizes = sorted({len(a) for a in frames})
    facts: dict[str, Any] = {
        "frames": len(frames),
        "formula": _few(formulas),
        "atoms": sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
    }
    results = [a.calc.results for a in frames if a.calc is not None]
    if known := sorted({name for r in results for name in r}):
        facts["results"] = ", ".join(known)
    energies = [
        r["energy"] / len(a) for a in frames if a.calc and "energy" in (r := a.calc.results)
    ]
    if energies:
        facts["energy (eV/atom)"] = f"{min(energies):.6f} to {max(energies):.6f}"
    records = [found for a in frames if (found := record_of(a)) is not None]
    return Summary("structures", facts, records[-1] if records else None)


def _png(path: Path) -> Summary:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        width, height = image.size
        text = image.info.get(KEY)
    origin = json.loads(text) if isinstance(text, str) else None
    return Summary("picture", {"size": f"{width} × {height} pixels"}, origin)


def _other(path: Path) -> Summary:
    return Summary("file", {"size": f"{path.stat().st_size} bytes"}, None)


READERS: Final[Mapping[str, Callable[[Path], Summary]]] = {
    ".toml": _toml,
    ".json": _json,
    ".csv": _csv,
    ".png": _png,
    **dict.fromkeys((".extxyz", ".xyz", ".traj"), _structures),
}


def _few(words: Sequence[str]) -> str:
    """The first five, each cut to forty characters."""
    shown = [w if len(w) <= 40 else f"{w[:40]}..." for w in words[:5]]
    return ", ".join([*shown, *(["..."] if len(words) > 5 else [])])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables under dotted names; long lists by their length."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list) and (
            len(value) > 8 or any(isinstance(v, list) for v in value)
        ):
            flat[name] = f"list of {len(value)}"
        else:
            flat[name] = value
    return flat
