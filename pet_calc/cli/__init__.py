"""``pet-calc``: one file per verb.

Importing this package must stay cheap, so that ``pet-calc --help`` answers at once: verbs import
torch, ASE and the workflows inside their functions.
"""

from __future__ import annotations

import sys

import typer

from pet_calc.cli import evaluate, md, train
from pet_calc.cli.models import models_app
from pet_calc.errors import PetCalcError

__all__ = ["app", "main"]

app = typer.Typer(
    name="pet-calc",
    help="PET neural potentials: molecular dynamics and training from the command line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("md")(md.md)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(models_app, name="models")


@app.callback()
def verbs() -> None:
    """PET neural potentials: molecular dynamics and training from the command line."""


def main() -> None:
    """Run ``pet-calc``; foreseen errors become one paragraph on stderr and exit code 1."""
    try:
        app()
    except (PetCalcError, ValueError) as error:
        from rich.console import Console

        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
