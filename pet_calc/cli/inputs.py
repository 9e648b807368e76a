"""What the verbs share: structures, calculators, and options from a file."""

from __future__ import annotations

import importlib
import sys
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms

    from pet_calc.workflows.guards import GuardConfig


def read_structure(path: Path, index: str | int = -1) -> Atoms:
    """One frame of a structure file, by default the last, or a plain error."""
    return read_structures(path, index)[-1]


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


class Ecse(StrEnum):
    """How a potential is made symmetric under rotations; see `PETCalculator`."""

    plain = "plain"
    auto = "auto"
    local = "local"
    layerwise = "layerwise"
    structure = "structure"
    quadrature = "quadrature"


class Direct(StrEnum):
    """What heads predict directly instead of the gradient of the energy."""

    both = "both"
    forces = "forces"
    stress = "stress"


def make_calculator(
    model: str,
    factory: str | None,
    device: str | None,
    dtype: str | None,
    ecse: Ecse | None = None,
    variant: str | None = None,
    non_conservative: Direct | None = None,
    cuda_graph: bool = False,
) -> Any:
    """The potential as an ASE calculator, or what ``module:factory`` returns.

    Parameters
    ----------
    model : str
        Name or path of a potential, several with commas between them (a committee), or "auto".
    factory : str or None
        ``module:callable`` that returns an ASE calculator without arguments; excludes the rest.
    device, dtype, ecse, variant, non_conservative
        Of the potential; None leaves the choice to its calculator.
    cuda_graph : bool
        Steps in fixed shapes, see `pet_calc.PETCalculator`.
    """
    fixed = cuda_graph or None
    given = [x for x in (device, dtype, ecse, variant, non_conservative, fixed) if x is not None]
    if factory is None:
        from pet_calc.calculators import calculator_for

        direct = {None: None, Direct.both: True}.get(non_conservative, non_conservative)
        return calculator_for(
            model if "," not in model or Path(model).exists() else model.split(","),
            device=device,
            dtype=dtype,
            ecse=False if ecse is Ecse.plain else plain(ecse),
            variant=variant,
            non_conservative=plain(direct),
            cuda_graph=fixed,
        )
    if model != "auto" or given:
        raise typer.BadParameter(
            "--calculator brings its own model, device, precision and options; leave those out",
            param_hint="--calculator",
        )
    return import_named(factory, "--calculator")()


def read_guards(limits: list[str]) -> GuardConfig:
    """Limits of the guards from ``name=value`` words; the others keep their defaults.

    Raises
    ------
    ValueError
        For a name that is none, or a value that is no number.
    """
    from pet_calc.workflows.guards import GuardConfig

    values = {}
    known = GuardConfig.__dataclass_fields__
    for word in limits:
        name, _, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise ValueError(
                f"`guard` must be name=value with one of {', '.join(known)}, got {word!r}"
            )
        try:
            values[name] = float(value)
        except ValueError as error:
            raise ValueError(f"`guard` {name} must be a number, got {value!r}") from error
    return GuardConfig(**values)


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


def read_options(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML or YAML file the defaults of a verb's flags.

    A flag on the command line wins over the file. The table ``provenance`` is left out, so that
    the settings that a run wrote can be used for the next one.
    """
    if path is None or context.resilient_parsing:
        return path
    values = load_table(path)
    values.pop("provenance", None)
    values = {str(k).replace("-", "_"): v for k, v in values.items()}
    known = {p.name for p in context.command.params if p.name} - {"config"}
    if unknown := sorted(set(values) - known):
        raise typer.BadParameter(
            f"{path} sets {', '.join(unknown)}, which this verb does not know; it knows "
            f"{', '.join(sorted(known))}",
            param_hint="--config",
        )
    context.default_map = {**(context.default_map or {}), **values}
    return path


def resolved_options(context: typer.Context) -> dict[str, Any]:
    """The options that a verb runs with, under the names that ``--config`` reads, as plain values.

    Options that only concern the output folder are left out.
    """
    return {
        name: plain(value)
        for name, value in context.params.items()
        if name not in ("config", "resume", "overwrite")
    }


def plain(value: Any) -> Any:
    """A path, choice or list of these as strings; other values as they are."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def load_table(path: Path) -> dict[str, Any]:
    """The top-level table of a TOML or YAML file.

    Raises
    ------
    ValueError
        If the file is absent, malformed or no table.
    """
    import tomllib

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


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML or YAML file with the same names as the flags; flags win over it.",
        is_eager=True,
        callback=read_options,
        show_default=False,
    ),
]
CalculatorOption = Annotated[
    str | None,
    typer.Option(
        "--calculator",
        help="Another ASE calculator: module:factory, as in ase.calculators.emt:EMT.",
        show_default=False,
    ),
]
EcseOption = Annotated[
    Ecse | None,
    typer.Option(
        "--ecse",
        help="Make a PET exactly symmetric under rotations and inversion; plain: take it as it is. "
        " [default: as trained]",
        show_default=False,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="Energy head of a potential that has several.  [default: the main one]",
        show_default=False,
    ),
]
DirectOption = Annotated[
    Direct | None,
    typer.Option(
        "--non-conservative",
        help="Take these from heads that predict them directly: faster, but no gradient of the "
        "energy.",
        show_default=False,
    ),
]
GuardOption = Annotated[
    list[str],
    typer.Option(
        "--guard",
        help="Limit that stops the run, as name=value; may be repeated. For example "
        "forces_uncertainty=0.5 (eV/Å), contact=0.5 (of the covalent radii); see docs/guards.md.",
        show_default=False,
    ),
]
