"""Options that verbs share: structures, potential, output folder, and options from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from pet_calc.cli.inputs import import_named, load_table, read_structures
from pet_calc.cli.options_of import require_file

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

Precision = Literal["float32", "float64"]
Ecse = Literal["plain", "auto", "local", "layerwise", "structure", "quadrature"]


@dataclass(frozen=True)
class Structure:
    """One structure from a file.

    Attributes
    ----------
    structure : Path
        Structure file in any format that ASE reads.
    index : str
        Frame of the file (ASE index); -1 is the last.
    """

    panel: ClassVar[str] = "Structure"

    structure: Path = field(metadata={"argument": True, "file": "structure file"})
    index: str = "-1"

    def read(self, console: Console | None = None) -> Atoms:
        """The frame; on a console, say what was read."""
        atoms = read_structures(self.structure, self.index)[-1]
        if console is not None:
            formula = atoms.get_chemical_formula(empirical=len(atoms) > 50)
            console.print(
                f"{self.structure}: {formula}, {len(atoms)} atoms", highlight=False, markup=False
            )
        return atoms


@dataclass(frozen=True)
class Structures:
    """All structures of some files.

    Attributes
    ----------
    files : list of Path
        Structure files in any format that ASE reads.
    index : str
        Frames of each file (ASE index), such as -1 for the last.
    """

    panel: ClassVar[str] = "Structures"

    files: list[Path] = field(metadata={"argument": True})
    index: str = ":"

    def __post_init__(self) -> None:
        if not any(path.is_file() for path in self.files):
            require_file(self.files[0], "structure file")

    def read(self) -> list[tuple[Path, int, Atoms]]:
        """File, number and structure of each frame."""
        return [
            (path, k, atoms)
            for path in self.files
            for k, atoms in enumerate(read_structures(path, self.index))
        ]


@dataclass(frozen=True)
class Potential:
    """What computes energies and forces.

    Attributes
    ----------
    model : str
        Name or path of a potential; auto picks one for the elements, a,b,c is a committee.
    calculator : str, optional
        Another ASE calculator: module:factory, as in ase.calculators.emt:EMT.
    dtype : {"float32", "float64"}, optional
        Precision of the potential, by default float32 in md and doctor, float64 otherwise.
    device : str, optional
        Device, cpu or cuda; by default the GPU if there is one.
    ecse : str, optional
        How a PET is made exactly symmetric under rotations and inversion, by default as trained;
        plain: not at all.
    variant : str, optional
        Energy head of a potential that has several, by default the main one.
    non_conservative : {"both", "forces", "stress"}, optional
        What heads predict directly instead of the gradient of the energy: faster, not conservative.
    kernels : {"auto", "reference", "triton"}, optional
        How operations are computed, by default auto; reference: by torch alone, triton: by Triton
        kernels on a GPU, after their results have matched.
    """

    panel: ClassVar[str] = "Potential"

    model: str = "auto"
    calculator: str | None = None
    dtype: Precision | None = None
    device: str | None = None
    ecse: Ecse | None = None
    variant: str | None = None
    non_conservative: Literal["both", "forces", "stress"] | None = None
    kernels: Literal["auto", "reference", "triton"] | None = None

    def load(self, precision: Precision = "float64", **options: Any) -> Any:
        """The potential as an ASE calculator, or what ``module:factory`` returns.

        Parameters
        ----------
        precision : str
            Unless `dtype` is given.
        options
            More options of the calculator, passed on as they are.
        """
        given = {
            "device": self.device,
            "dtype": self.dtype,
            "ecse": self.ecse,
            "variant": self.variant,
            "non_conservative": self.non_conservative,
            "kernels": self.kernels,
            **options,
        }
        if self.calculator is not None:
            if self.model != "auto" or any(value is not None for value in given.values()):
                raise typer.BadParameter(
                    "--calculator brings its own model, device, precision and options; leave "
                    "those out",
                    param_hint="--calculator",
                )
            return import_named(self.calculator, "--calculator")()
        from pet_calc.calculators import load_calculator

        direct = True if self.non_conservative == "both" else self.non_conservative
        several = "," in self.model and not Path(self.model).exists()
        return load_calculator(
            self.model.split(",") if several else self.model,
            **given
            | {
                "dtype": self.dtype or precision,
                "ecse": False if self.ecse == "plain" else self.ecse,
                "non_conservative": direct,
            },
        )


@dataclass(frozen=True)
class OutputFolder:
    """Where results go.

    Attributes
    ----------
    out : Path
        Output folder.
    overwrite : bool
        Replace the files of an earlier run there.
    """

    panel: ClassVar[str] = "Output"

    out: Path = Path("out")
    overwrite: bool = field(default=False, metadata={"flag": "--overwrite"})

    #: Options that concern the folder, not the results: left out of the settings.
    unrecorded: ClassVar[tuple[str, ...]] = ("config", "resume", "overwrite")


@dataclass(frozen=True)
class ReportedFolder(OutputFolder):
    """Where results go, with a page about them.

    Attributes
    ----------
    report : bool
        Also write report.html, a page with figures, results and a 3-D view.
    """

    report: bool = False


@dataclass(frozen=True)
class ResumableFolder(OutputFolder):
    """Where results go, of a run that can be continued.

    Attributes
    ----------
    resume : bool
        Continue the run in the output folder.
    """

    resume: bool = field(default=False, metadata={"flag": "--resume"})

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise typer.BadParameter(
                "--resume keeps what --overwrite replaces; give one of the two",
                param_hint="--resume",
            )


@dataclass(frozen=True)
class ResumedFolder(ResumableFolder, ReportedFolder):
    """Where results go, of a run that can be continued, with a page about them."""


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
    parameters = {p.name: p for p in context.command.params if p.name and p.name != "config"}
    known = parameters.keys()
    if unknown := sorted(set(values) - known):
        raise typer.BadParameter(
            f"{path} sets {', '.join(unknown)}, which this verb does not have; its options are "
            f"{', '.join(sorted(known))}",
            param_hint="--config",
        )
    for name, value in values.items():
        several = parameters[name].multiple or parameters[name].nargs == -1
        if several and not isinstance(value, list):
            values[name] = [value]
    context.default_map = {**(context.default_map or {}), **values}
    return path


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
