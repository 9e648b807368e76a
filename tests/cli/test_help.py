"""Each verb's help has an example, and every verb can be told by a file."""

import pytest
import typer
from typer.testing import CliRunner

from pet_calc.cli import app

GROUP = typer.main.get_command(app)
#: Verbs that only look something up; what they need fits on one line.
WITHOUT_CONFIG = {"show", "models list", "models show", "models path", "models download",
                  "models verify"}  # fmt: skip
#: Verbs that compute with a potential.
POTENTIAL = ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "doctor")


def commands(group=GROUP, before=()):
    """All verbs with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


VERBS = dict(commands())


def test_the_first_help_names_all_verbs_and_an_example():
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(name in text for name in GROUP.commands)
    assert "pet-calc md" in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example(verb):
    result = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"pet-calc {verb}" in result.output


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_read_their_options_from_a_file(verb):
    names = {p.name for p in VERBS[verb].params}
    # train is described by a file altogether
    assert "config" in names or verb in WITHOUT_CONFIG


@pytest.mark.parametrize("verb", POTENTIAL)
def test_options_of_a_potential_are_the_same_everywhere(verb):
    names = {p.name for p in VERBS[verb].params}
    assert {"model", "calculator", "dtype", "device", "ecse", "variant"} <= names
    assert "non_conservative" in names
