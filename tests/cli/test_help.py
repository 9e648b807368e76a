"""Each verb's help has an example, and every verb can be told by a file."""

import inspect
import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from pet_calc.cli import app

GROUP = typer.main.get_command(app)
#: Verbs that only look something up; what they need fits on one line.
WITHOUT_CONFIG = {"show", "models list", "models show", "models path", "models download",
                  "models verify", "models record"}  # fmt: skip
#: Verbs that compute with a potential.
POTENTIAL = ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "doctor", "generate",
             "hull build")  # fmt: skip
#: Names of options that one idea must have wherever it occurs, and the verbs where it does.
SAME_NAMES = {
    "cell": ("relax", "phonons", "qha", "eos"),
    "steps": ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "generate", "hull build"),
    "symmetrize": ("relax", "elastic", "phonons", "qha"),
    "span": ("eos", "qha"),
    "points": ("eos", "qha", "elastic"),
    "batch_edges": ("relax", "phonons", "qha"),
    "resume": ("md", "relax", "generate"),
    "report": ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "analyze", "predict"),
    "index": ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "doctor", "predict",
              "analyze", "hull build"),
    "guard": ("md", "relax", "elastic", "eos"),
    "overwrite": ("md", "relax", "phonons", "qha", "elastic", "eos", "neb", "analyze", "predict",
                  "generate", "hull build", "doctor", "report"),
}  # fmt: skip


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


def examples(text, verb):
    """The words that follow ``pet-calc VERB`` in each example of a help text."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    found = (re.search(rf"pet-calc {verb}(?![\w-])(?P<rest>.*)", p, re.DOTALL) for p in paragraphs)
    return [shlex.split(match["rest"]) for match in found if match]


def parse(verb, words):
    """The parameters that a command line gives; raises for options that do not exist."""
    command = VERBS[verb]
    with command.make_context(verb, [], resilient_parsing=True) as context:
        context.resilient_parsing = False  # that was for the callbacks; now errors count
        given, _, _ = command.make_parser(context).parse_args(list(words))
        return given


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_examples_that_it_understands(verb):
    result = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    # the line of usage names the verb as well
    shown = [line for line in result.output.splitlines() if "Usage:" not in line]
    assert any(f"pet-calc {verb}" in line for line in shown)
    found = examples(VERBS[verb].help, verb)
    assert found
    for words in found:
        given = parse(verb, words)
        required = {p.name for p in VERBS[verb].params if p.required}
        assert all(given.get(name) for name in required), words


def test_examples_are_looked_at():
    """The control: help without an example, and examples with an option or argument amiss."""
    assert examples("Relax.\n\nWrites relax.csv.", "relax") == []
    assert examples("Relax.\n\n  pet-calc relax-all POSCAR", "relax") == []
    (words,) = examples("Relax.\n\n  pet-calc relax POSCAR\n  --cel free", "relax")
    assert words == ["POSCAR", "--cel", "free"]
    with pytest.raises(Exception, match="--cel"):
        parse("relax", words)
    assert not parse("relax", ["--cell", "free"]).get("files")


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_read_their_options_from_a_file(verb):
    names = {p.name for p in VERBS[verb].params}
    # train is described by a file altogether
    assert "config" in names or verb in WITHOUT_CONFIG


@pytest.mark.parametrize(("name", "verbs"), SAME_NAMES.items())
def test_one_idea_has_one_name(name, verbs):
    assert all(name in {p.name for p in VERBS[verb].params} for verb in verbs)


def test_the_shared_names_are_looked_at():
    assert "max_steps" not in {p.name for verb in VERBS.values() for p in verb.params}
    assert "cell" not in {p.name for p in VERBS["neb"].params}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_help_text(verb):
    assert all(p.help for p in VERBS[verb].params if p.name != "help")


@pytest.mark.parametrize("verb", POTENTIAL)
def test_options_of_a_potential_are_the_same_everywhere(verb):
    names = {p.name for p in VERBS[verb].params}
    assert {"model", "calculator", "dtype", "device", "ecse", "variant", "kernels"} <= names
    assert "non_conservative" in names
