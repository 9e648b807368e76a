"""The run of a verb: its folder, its settings there, and its page."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pet_calc.cli.inputs import load_table
from pet_calc.cli.options import OutputFolder, ResumableFolder
from pet_calc.cli.options_of import plain
from pet_calc.errors import OutputError

if TYPE_CHECKING:
    from ase import Atoms

#: Keys of a provenance that another run must share to continue a folder.
SAME = ("calculator", "model", "sha256", "ecse", "variant", "non_conservative")
REPORT = "report.html"


class Run:
    """Output folder of a verb: tried before the work starts, marked with its settings once it does.

    Parameters
    ----------
    context : typer.Context
        Of the verb, whose options are recorded.
    folder : OutputFolder
    names : sequence of str
        Files that the verb writes; those of an earlier run are removed by `begin`.
    kept : sequence of str
        Those among `names` that the workflow itself replaces.
    verb : str, optional
        Name of the verb, of which the settings file has its name.
    """

    def __init__(
        self,
        context: typer.Context,
        folder: OutputFolder,
        names: Sequence[str],
        *,
        kept: Sequence[str] = (),
        verb: str = "",
    ) -> None:
        from rich.console import Console

        from pet_calc.io.runs.outputs import claim_folder

        self.context, self.folder, self.out = context, folder, folder.out
        self.verb = verb or str(context.info_name)
        self.console = Console()
        self.kept = kept
        self.reported = getattr(folder, "report", None)
        if self.reported:
            from pet_calc.workflows.report import require_viewer

            require_viewer()
        self.resumed = isinstance(folder, ResumableFolder) and folder.resume
        self.written = (f"{self.verb}.toml", *names)
        if self.reported is not None:
            self.written += (REPORT,)
        claim_folder(self.out, self.written, overwrite=folder.overwrite or self.resumed)
        self.origin: dict[str, Any] = {}

    @property
    def settings(self) -> Path:
        """File of the settings."""
        return self.out / f"{self.verb}.toml"

    def begin(
        self,
        calculator: Any = None,
        *,
        packages: Sequence[str] = ("ase", "numpy", "torch"),
        seed: int | None = None,
        free: Sequence[str] | None = None,
        record: Mapping[str, Any] | None = None,
        **resolved: Any,
    ) -> dict[str, Any]:
        """Remove what an earlier run left, write the settings, and return the provenance.

        Parameters
        ----------
        calculator : ase calculator, optional
            That of the run; a potential that was chosen automatically is recorded by its name.
        packages, seed
            See `pet_calc.io.runs.provenance.provenance`.
        free : sequence of str, optional
            Options that a run which continues the folder may change; the others must be the same.
            By default the workflow sees to that itself.
        record : mapping, optional
            More for the provenance.
        resolved
            Options whose value has been found meanwhile.
        """
        from pet_calc.io.models.files import write_atomically
        from pet_calc.io.runs.outputs import clear_folder
        from pet_calc.io.runs.provenance import provenance, settings_toml

        self.origin = provenance(calculator, seed=seed, packages=packages) | dict(record or {})
        options = {**self.options(calculator), **resolved}
        text = settings_toml(f"settings of pet-calc {self.verb}", options, self.origin)
        if self.resumed and free is not None:
            check_same(self.settings, text, (*free, "out", "report", "device"))
        clear_folder(self.out, (REPORT,) if self.resumed else set(self.written) - set(self.kept))
        write_atomically(self.settings, text.encode())
        return self.origin

    def options(self, calculator: Any = None) -> dict[str, Any]:
        """The options under the names that ``--config`` reads, as plain values."""
        given = self.context.params
        options = {
            p.name: plain(given[p.name])
            for p in self.context.command.params
            if p.name in given and p.name not in OutputFolder.unrecorded
        }
        if options.get("calculator") is not None:
            options["model"] = None
        elif calculator is not None:
            recorded = calculator.todict()
            if options["model"] == "auto":
                options["model"] = recorded.get("model")
            options["dtype"] = recorded.get("dtype")
        return options

    def page(self, frames: Sequence[Atoms] | None = None) -> None:
        """The report of the finished run where it is wanted, or how to get one.

        `frames` are shown in its 3-D view, by default the structures of the folder.
        """
        if not self.reported:
            hint = f"a page of this run: pet-calc report {self.out}"
            self.console.print(hint, highlight=False, markup=False)
            return
        from pet_calc.workflows.progress import pulsing
        from pet_calc.workflows.report import Structures, report_folder

        with pulsing("report"):
            shown = None if frames is None else Structures(list(frames))
            path = report_folder(self.out, structures=shown)
        size = f"{path}: {path.stat().st_size / 1e6:.1f} MB"
        self.console.print(size, highlight=False, markup=False)

    def files(self) -> str:
        """The files that it has written, one a line."""
        return "\n".join(name for name in self.written if (self.out / name).exists())

    def warn(self, warnings: Sequence[str]) -> None:
        """Print what a user should know before using the numbers."""
        for text in warnings:
            self.console.print(f"Warning: {text}", style="yellow", markup=False, highlight=False)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A result with its provenance."""
        from pet_calc.io.runs.results import write_summary

        write_summary(self.out / name, content, self.origin)

    def write_csv(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table with all digits."""
        from pet_calc.io.runs.results import write_table

        write_table(self.out / name, columns, rows, digits=None)


def check_start(structures: Sequence[Atoms], calculator: Any, config: Any) -> None:
    """Choose one potential for the structures, and refuse those that cannot be relaxed.

    Parameters
    ----------
    structures : sequence of Atoms
    calculator : ase calculator
    config : RelaxConfig
        The first relaxation.
    """
    from pet_calc.workflows.relax.many import settle_model, starting_problem, with_calculator

    settle_model(structures, calculator)
    for atoms in with_calculator(structures, calculator):
        problem = starting_problem(atoms, config)
        if problem is not None:
            raise problem


def check_same(path: Path, text: str, free: Sequence[str]) -> None:
    """Refuse to continue a run that had other settings or another potential.

    Raises
    ------
    OutputError
    """
    if not path.is_file():
        return
    old, new = load_table(path), tomllib.loads(text)
    different = sorted(
        key
        for key in (old.keys() | new.keys()) - {"provenance", *free}
        if old.get(key) != new.get(key)
    )
    then, now = (table.get("provenance", {}) for table in (old, new))
    different += [key for key in SAME if then.get(key) != now.get(key)]
    if different:
        raise OutputError(
            f"{path.parent} was begun with another {', '.join(dict.fromkeys(different))}; "
            f"resume with the settings of {path.name}, or choose another folder"
        )
