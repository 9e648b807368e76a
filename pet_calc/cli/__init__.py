"""``pet-calc``: one file per verb.

Importing this package must stay cheap, so that ``pet-calc --help`` answers at once: verbs import
torch, ASE and the workflows inside their functions.
"""

from __future__ import annotations

import os
import sys

import typer

from pet_calc.cli import (
    analyze,
    doctor,
    elastic,
    eos,
    evaluate,
    generate,
    md,
    neb,
    phonons,
    predict,
    relax,
    report,
    show,
    train,
)
from pet_calc.cli.import_checkpoint import import_model
from pet_calc.cli.models import models_app
from pet_calc.errors import PetCalcError
from pet_calc.processors import free_cores

__all__ = ["app", "main"]

app = typer.Typer(
    name="pet-calc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("md")(md.md)
app.command("relax")(relax.relax)
app.command("eos")(eos.eos)
app.command("elastic")(elastic.elastic)
app.command("neb")(neb.neb)
app.command("show")(show.show)
app.command("analyze")(analyze.analyze)
app.command("report")(report.report)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("phonons")(phonons.phonons)
app.command("qha")(phonons.qha)
app.command("doctor")(doctor.doctor)
app.command("generate")(generate.generate)
app.add_typer(generate.hull_app, name="hull")
models_app.command("import")(import_model)
app.add_typer(models_app, name="models")


@app.callback()
def verbs() -> None:
    """PET neural potentials: molecular dynamics and training from the command line.

    For example:

      pet-calc md --system water --molecules 64 --steps 2000

      pet-calc relax POSCAR --cell free

      pet-calc doctor POSCAR
    """


def main() -> None:
    """Run ``pet-calc``; foreseen errors become one paragraph on stderr and exit code 1.

    Threads that wait for a busy core make a step many times slower than fewer threads would, so
    that their number follows the free cores, unless OMP_NUM_THREADS says otherwise. torch reads
    it when a verb imports it, as it does the switch for huge pages under large tensors, which
    saves a few percent of a step.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(free_cores()))
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        app()
    except (PetCalcError, ValueError) as error:
        from rich.console import Console

        # unwrapped, so that paths and commands in it can be copied
        Console(stderr=True).print(
            f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
