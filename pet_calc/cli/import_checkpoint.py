"""``pet-calc models import``: a published checkpoint becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_model(
    file: Annotated[Path, typer.Argument(help="Checkpoint of a published PET model (.ckpt).")],
    name: Annotated[
        str | None, typer.Option(help="Name of the folder to write; by default the file's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where that folder is made.")] = Path(),
) -> None:
    """Convert a published PET checkpoint into a model folder; nothing in it is executed.

    Example: pet-calc models import pet-mad-s-v1.0.2.ckpt --name pet-mad-s
    """
    # torch is loaded only when it is needed
    from rich.console import Console

    from pet_calc.io.checkpoints import convert_checkpoint

    if name is not None and (not name or Path(name).name != name):
        raise typer.BadParameter(f"must be a plain folder name, got {name!r}", param_hint="--name")
    folder = out / (name or file.name.removesuffix(".gz").removesuffix(".ckpt"))
    if folder.exists() and folder.samefile(file):
        raise typer.BadParameter("must differ from the file's own", param_hint="--name")
    imported = convert_checkpoint(file, folder)
    config = imported.config
    console = Console()
    console.print(
        f"{folder}: PET for {len(config.elements)} elements, cutoff {config.cutoff:g} Å, from a "
        f"checkpoint of format {imported.version}",
        highlight=False,
        markup=False,
    )
    if len(config.energy_heads) > 1:
        console.print(f"energy heads: {', '.join(config.energy_heads)}", markup=False)
    if imported.wrapper:
        console.print("with its uncertainties (LLPR)", markup=False)
    if imported.ignored:
        console.print(f"left out: {', '.join(imported.ignored)}", markup=False)
