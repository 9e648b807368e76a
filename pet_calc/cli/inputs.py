"""What verbs read: structures, objects of modules, tables of options."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms


def read_structures(path: Path, index: str | int = ":") -> list[Atoms]:
    """Frames of a structure file in any format that ASE reads.

    Raises
    ------
    InvalidStructureError
        If the file is absent, unreadable or empty.
    """
    from ase import Atoms
    from ase.io import read

    from pet_calc.errors import InvalidStructureError

    if not path.is_file():
        raise InvalidStructureError(f"there is no structure file {path}")
    try:
        found = read(path, index=index)
    except Exception as error:  # each of ASE's many readers fails in its own way
        raise InvalidStructureError(
            f"{path} cannot be read as a structure ({type(error).__name__}: {error})"
        ) from error
    frames = [found] if isinstance(found, Atoms) else found
    if not frames or not all(isinstance(a, Atoms) for a in frames):
        raise InvalidStructureError(f"{path} does not hold a structure")
    return frames


def import_named(path: str, option: str) -> Any:
    """What ``module:name`` names; modules of the working folder are found as well.

    Parameters
    ----------
    path : str
        Such as ``ase.calculators.emt:EMT``.
    option : str
        The option that it was given to, for the error.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise typer.BadParameter(
            f"write module:name, as in ase.calculators.emt:EMT, got {path!r}", param_hint=option
        )
    # an installed command does not look there by itself, as python -m does
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    finally:
        if added:
            sys.path.remove(here)


def load_table(path: Path) -> dict[str, Any]:
    """The top-level table of a TOML or YAML file.

    Raises
    ------
    ValueError
        If the file is absent, malformed or no table.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"there is no options file {path}; name a TOML or YAML file")
    text = path.read_text(encoding="utf-8")
    try:
        is_yaml = path.suffix in (".yaml", ".yml")
        values = yaml.safe_load(text) if is_yaml else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is malformed: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a table of options, got {type(values).__name__}")
    return values
