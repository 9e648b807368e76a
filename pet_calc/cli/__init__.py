"""``pet-calc``: one file per verb.

Importing this package must stay cheap, so that ``pet-calc --help`` answers at once: verbs import
torch, ASE and the workflows inside their functions.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

import pet_calc
from pet_calc.errors import PetCalcError
from pet_calc.processors import free_cores

__all__ = ["app", "main"]

#: Verbs by the panel of the first help that they stand in, with module and name of each.
VERBS = {
    "Simulation": {"md": "md:md", "relax": "relax:relax", "neb": "neb:neb"},
    "Crystals": {
        "phonons": "phonons:phonons",
        "qha": "phonons:qha",
        "eos": "eos:eos",
        "elastic": "elastic:elastic",
        "generate": "generate:generate",
        "hull": "generate:hull_app",
    },
    "Results": {"analyze": "analyze:analyze", "report": "report:report", "show": "show:show"},
    "Models": {
        "doctor": "doctor:doctor",
        "predict": "predict:predict",
        "train": "train:train",
        "evaluate": "evaluate:evaluate",
        "models": "models:models_app",
    },
}


def make_app(only: str | None = None) -> typer.Typer:
    """The command line; with one verb alone, the modules of the others are not loaded."""
    made = typer.Typer(
        name="pet-calc",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(verbs)
    for panel, names in VERBS.items():
        for name, place in names.items():
            if only not in (None, name):
                continue
            module, _, attribute = place.partition(":")
            verb = getattr(import_module(f"pet_calc.cli.{module}"), attribute)
            if isinstance(verb, typer.Typer):
                made.add_typer(verb, name=name, rich_help_panel=panel)
            else:
                made.command(name, rich_help_panel=panel)(verb)
    return made


def __getattr__(name: str) -> Any:
    """`app`, the whole command line, when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = make_app()
    return made


def print_version(wanted: bool) -> None:
    """Answer ``--version``."""
    if wanted:
        typer.echo(f"pet-calc {pet_calc.__version__}")
        raise typer.Exit


def verbs(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Results, warnings and errors only: no progress.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also what is decided on the way, on stderr.")
    ] = False,
) -> None:
    """PET neural potentials: molecular dynamics and training from the command line.

    For example:

      pet-calc md --system water --molecules 64 --steps 2000

      pet-calc relax POSCAR --cell free

      pet-calc doctor POSCAR
    """
    if quiet and verbose:
        raise typer.BadParameter("give one of --quiet and --verbose", param_hint="--quiet")
    if verbose:
        logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("pet_calc").setLevel(logging.DEBUG)
    if quiet:
        from pet_calc.workflows.progress import silence

        silence()


def main() -> None:
    """Run ``pet-calc``; foreseen errors become one paragraph on stderr and exit code 1.

    Threads that wait for a busy core make a step many times slower than fewer threads would, so
    that their number follows the free cores, unless OMP_NUM_THREADS says otherwise. torch reads
    it when a verb imports it, as it does the switch for huge pages under large tensors, which
    saves a few percent of a step.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(free_cores()))
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # spglib's C code writes to the terminal where no symmetry fits; the results say so themselves
    os.environ.setdefault("SPGLIB_WARNING", "OFF")
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    alone = named if any(named in names for names in VERBS.values()) else None
    try:
        make_app(alone)()
    except (PetCalcError, ValueError) as error:
        from rich.console import Console

        # unwrapped, so that paths and commands in it can be copied
        Console(stderr=True).print(
            f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
