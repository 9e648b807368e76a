"""``pet-calc models import``: a model in another package's form becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_calc.cli.options import ConfigOption


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="Published checkpoint (.ckpt), calculation folder of the first public PET, or a "
            "pair of .json and .safetensors as pet-kokkos keeps it (either file, or their folder)."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the folder to write; by default the source's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where that folder is made.")] = Path(),
    auxiliary: Annotated[
        Path | None,
        typer.Option(
            help="Calculation folder of the invariant model that goes with a first public PET."
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Convert a PET model of another package into a model folder; nothing in it is executed.

    Example: pet-calc models import pet-mad-s-v1.0.2.ckpt --name pet-mad-s
    """
    # torch is loaded only when it is needed
    from rich.console import Console

    from pet_calc.errors import CheckpointError, PotentialNotFoundError
    from pet_calc.io.foreign.detection import add_auxiliary, convert_foreign, find_foreign
    from pet_calc.workflows.progress import pulsing

    if name is not None and (not name or Path(name).name != name):
        raise typer.BadParameter(f"must be a plain folder name, got {name!r}", param_hint="--name")
    if not source.exists():
        raise PotentialNotFoundError(
            f"a model is a file or a folder, but there is none at {source}"
        )
    foreign = find_foreign(source)
    if foreign is None:
        raise CheckpointError(
            f"{source} must be a checkpoint (.ckpt), a calculation folder, or a pair of .json and "
            f".safetensors; a folder with config.json needs no import"
        )
    folder = out / (name or foreign.name)
    if folder.exists() and folder.samefile(source):
        raise typer.BadParameter("must differ from the source's own", param_hint="--name")
    with pulsing("converting"):
        found = convert_foreign(foreign, folder)
        if auxiliary is not None:
            add_auxiliary(folder, auxiliary)
    if auxiliary is not None:
        found.append("with its auxiliary model")
    console = Console()
    console.print(f"{folder}: {found[0]}", highlight=False, markup=False)
    for line in found[1:]:
        console.print(line, highlight=False, markup=False)
