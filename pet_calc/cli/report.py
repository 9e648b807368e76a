"""``pet-calc report``: one HTML page from the output folder of another verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_calc.cli.options import ConfigOption
from pet_calc.cli.run import REPORT


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Output folder of pet-calc md, relax, phonons or another verb.",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write.  [default: report.html in the folder]", show_default=False
        ),
    ] = None,
    viewer: Annotated[
        bool, typer.Option(help="Include the interactive 3-D view (chemiscope).")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier report.")
    ] = False,
) -> None:
    """Write a self-contained HTML page: figures, results, 3-D view, settings and provenance.

    For example:

      pet-calc report md_out

      pet-calc report phonons_out --out si.html --no-viewer

    The page works without a network. It is recognized by md.toml, relax.toml, phonons.toml and so
    on what the folder holds.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name an output folder of pet-calc")
    from rich.console import Console

    from pet_calc.io.runs.outputs import claim_folder
    from pet_calc.workflows.progress import pulsing
    from pet_calc.workflows.report import report_folder

    path = folder / REPORT if out is None else out
    claim_folder(path.parent, [path.name], overwrite=overwrite)
    with pulsing("report"):
        report_folder(folder, path, viewer=viewer)
    Console().print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", highlight=False)
