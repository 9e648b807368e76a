"""The page on the command line names options that exist, of the verbs that it names."""

import re
from pathlib import Path

import typer

from pet_calc.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "command_line.md").read_text(encoding="utf-8")
GROUP = typer.main.get_command(app)
ROWS = [row.split("|")[1:4] for row in TEXT.splitlines() if row.startswith("| `--")]


def flags(verb):
    return {flag for p in GROUP.commands[verb].params for flag in (*p.opts, *p.secondary_opts)}


def test_options_of_the_table_exist():
    assert len(ROWS) > 10
    for options, _, verbs in ROWS:
        named = [v for v in re.findall(r"\w+", verbs) if v in GROUP.commands]
        for verb in named or ["md"]:
            if verb == "md" and "--fmax" in options:
                continue
            assert set(re.findall(r"--[\w-]+", options)) <= flags(verb), (options, verb)


def test_examples_of_several_values_exist():
    assert "--z" in flags("generate")
    assert "--property" in flags("predict")
