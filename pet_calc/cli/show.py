"""``pet-calc show``: what a file or folder holds, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    file: Annotated[
        Path, typer.Argument(help="Anything that pet-calc wrote: a file, a run or a potential.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a file or folder holds, and the record of how it was made.

    For example:

      pet-calc show relax_out

      pet-calc show eos_out/eos.png --json
    """
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pet_calc.io.runs.summaries import summarize

    found = summarize(file)
    if as_json:
        typer.echo(json.dumps({"file": str(file), **asdict(found)}, indent=2, ensure_ascii=False))
        return
    console = Console()
    table = Table(title=Text(f"{file}: {found.kind}"), show_header=False, title_justify="left")
    for name, value in found.facts.items():
        table.add_row(
            name, Text(", ".join(map(str, value)) if isinstance(value, list) else str(value))
        )
    console.print(table)
    if found.origin is None:
        console.print("no provenance is recorded in it or beside it")
        return
    title = "provenance" + (f" (from {found.source})" if found.source else "")
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in found.origin.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        table.add_row(name, Text(str(value)))
    console.print(table)
