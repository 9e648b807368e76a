"""Where a result comes from: software, potential, precision, device, command line and seed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pet_calc

if TYPE_CHECKING:
    from ase import Atoms

#: Name of the record in every kind of output: key of ``atoms.info``, of a PNG's text, of JSON, of
#: TOML.
KEY = "provenance"

#: Keys of a calculator's ``todict()`` that another run needs to be the same.
CALCULATOR_KEYS = ("model", "sha256", "dtype", "device", "ecse", "variant", "non_conservative")


def provenance(
    calculator: Any = None,
    *,
    seed: int | None = None,
    command: Sequence[str] | None = None,
    packages: Sequence[str] = ("ase", "numpy", "torch"),
) -> dict[str, Any]:
    """What a later reader needs to make a result again, as plain values.

    Parameters
    ----------
    calculator : ase calculator, optional
        Its ``todict()`` is asked for model, SHA-256, precision and device; a calculator of another
        package is recorded by its class.
    seed : int, optional
    command : sequence of str, optional
        Command line; by default that of this process.
    packages : sequence of str
        Distributions whose version matters for this result.

    Returns
    -------
    dict
        Only what is known; strings, numbers and one nested dictionary ``versions``.
    """
    values: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv if command is None else command),
        "versions": {"pet_calc": pet_calc.__version__, **installed(packages)},
    }
    if calculator is not None:
        values |= calculator_record(calculator)
    if seed is not None:
        values["seed"] = seed
    return values


def calculator_record(calculator: Any) -> dict[str, Any]:
    """Class of an ASE calculator, with its model, precision and device."""
    kind = type(calculator)
    recorded = calculator.todict() if hasattr(calculator, "todict") else {}
    known = {key: recorded[key] for key in CALCULATOR_KEYS if recorded.get(key) is not None}
    return {"calculator": f"{kind.__module__}.{kind.__qualname__}", **known}


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def stamp(atoms: Atoms, origin: Mapping[str, Any]) -> None:
    """Write `origin` into ``atoms.info["provenance"]``, whence it goes into every file of ASE's.

    The record is a JSON string, as both extended XYZ and ASE's trajectories keep it. Quotation
    marks and backslashes within a value are percent-encoded: the extended XYZ of ASE loses them.
    """
    atoms.info[KEY] = json.dumps(_encoded(origin), ensure_ascii=False)


def record_of(atoms: Atoms) -> dict[str, Any] | None:
    """The record that `stamp` wrote; None if there is none."""
    text = atoms.info.get(KEY)
    record = json.loads(text) if isinstance(text, str) else text
    return _decoded(record) if isinstance(record, dict) else None


def _encoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _encoded(v) for k, v in value.items()}
    if isinstance(value, str):
        return "".join(quote(c) if c in '%"\\' or ord(c) < 32 else c for c in value)
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _decoded(v) for k, v in value.items()}
    return unquote(value) if isinstance(value, str) else value


def json_text(content: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """A result as JSON with its provenance under the key ``provenance``."""
    return json.dumps({**content, KEY: origin}, indent=2, ensure_ascii=False) + "\n"


def image_metadata(origin: Mapping[str, Any], suffix: str) -> dict[str, str]:
    """The record as matplotlib's ``savefig(metadata=...)`` wants it for a file of this ending.

    Raises
    ------
    ValueError
        For an ending other than .png, .pdf and .svg, whose formats have no place for it.
    """
    text = json.dumps(origin, ensure_ascii=False)
    places = {".png": KEY, ".pdf": "Subject", ".svg": "Description"}
    if suffix.lower() not in places:
        raise ValueError(
            f"a figure with provenance must be .png, .pdf or .svg, got {suffix!r}; choose one"
        )
    return {places[suffix.lower()]: text}


def settings_toml(title: str, settings: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """Settings of a run and their provenance as TOML that ``--config`` reads again.

    Parameters
    ----------
    title : str
        First line, as a comment.
    settings : mapping
        Resolved options under the names of the flags; None is left out. Values are scalars, lists
        of scalars, or one level of tables.
    origin : mapping
        From `provenance`; becomes the table ``[provenance]``, which ``--config`` ignores.
    """
    lines = [f"# {title}"]
    tables = {k: v for k, v in settings.items() if isinstance(v, Mapping)}
    lines += [
        f"{k} = {toml_value(v)}" for k, v in settings.items() if k not in tables if v is not None
    ]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{k} = {toml_value(v)}" for k, v in table.items() if v is not None),
        ]
    flat = {k: v for k, v in origin.items() if not isinstance(v, Mapping)}
    lines += ["", "[provenance]", *(f"{k} = {toml_value(v)}" for k, v in flat.items())]
    for name, table in origin.items():
        if isinstance(table, Mapping):
            known = (f"{k} = {toml_value(v)}" for k, v in table.items() if v is not None)
            lines += [f"[provenance.{name}]", *known]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A scalar or a list of scalars as TOML; JSON writes both in the same way."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
