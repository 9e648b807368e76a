"""Options from the fields of dataclasses: names, types, defaults, help, and what the verb gets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from pet_calc.cli.options_of import attribute_help, first_sentence, options_of
from pet_calc.errors import InvalidStructureError


@dataclass(frozen=True)
class Limits:
    """Limits.

    Attributes
    ----------
    near, far : float
        Distance, Å.
    """

    near: float = 1.0
    far: float | None = None


@dataclass(frozen=True)
class Inner:
    """Settings within settings.

    Attributes
    ----------
    steps : int
        Number of inner steps.
    hidden : int
        No option.
    """

    steps: int = 5
    hidden: int = 7


@dataclass(frozen=True)
class Settings:
    """Settings.

    Attributes
    ----------
    file : Path
        A file, such as `this.txt`. It has a second sentence.
    kind : {"one", "two"}
        A choice.
    numbers : tuple of int, optional
        Some numbers.
    words : tuple of str
        Some words.
    on : bool
        A switch.
    inner : Inner
        Of something else.
    limits : Limits
        Limits, see there.
    """

    panel: ClassVar[str] = "Panel"

    file: Path = field(metadata={"argument": True, "file": "list"})
    kind: Literal["one", "two"] = "one"
    numbers: tuple[int, ...] | None = None
    words: tuple[str, ...] = ("a", "b")
    on: bool = True
    inner: Inner = field(default_factory=Inner, metadata={"options": {"steps": "inner_steps"}})
    limits: Limits = field(default_factory=Limits, metadata={"words": "limit"})

    def __post_init__(self) -> None:
        if self.inner.steps < 0:
            raise ValueError("`inner_steps` must not be negative")


@pytest.fixture
def run(tmp_path):
    """The settings that a verb receives for a command line, and the recorded options."""
    (tmp_path / "list.txt").write_text("")

    def run(*words, file=tmp_path / "list.txt", **defaults):
        received = []

        @options_of(**defaults)
        def verb(context: typer.Context, file: Annotated[Settings, "Own"], n: int = 3) -> None:
            """Do it."""
            received.append((file, n, dict(context.params)))

        app = typer.Typer()
        app.command()(verb)
        result = CliRunner().invoke(app, [str(file), *words], env={"COLUMNS": "150"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return received[0] if received else result

    return run


def test_defaults(run, tmp_path):
    settings, n, recorded = run()
    assert settings == Settings(tmp_path / "list.txt")
    assert n == 3
    assert recorded["limit"] == ["near=1.0"]


def test_defaults_of_the_verb(run):
    assert run(kind="two")[0].kind == "two"


def test_values(run):
    settings, n, recorded = run(
        *("--kind", "two", "--numbers", "2 2 2", "--words", "x,y", "--words", "z", "--no-on"),
        *("--inner-steps", "9", "--limit", "far=3", "--n", "4"),
    )
    assert settings.kind == "two"
    assert settings.numbers == (2, 2, 2)
    assert settings.words == ("x", "y", "z")
    assert not settings.on
    assert settings.inner == Inner(9, 7)
    assert settings.limits == Limits(1.0, 3.0)
    assert n == 4
    assert recorded["limit"] == ["near=1.0", "far=3.0"]


@pytest.mark.parametrize("text", ["1,2", "1 2", "1x2", "[1, 2]", "1;2"])
def test_separators_of_numbers(run, text):
    assert run("--numbers", text)[0].numbers == (1, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kind", "three"), "not one of"),
        (("--numbers", "two"), "write whole numbers"),
        (("--hidden", "1"), "No such option"),
    ],
)
def test_what_the_parser_refuses(run, words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--inner-steps", "-1"), "must not be negative"),
        (("--limit", "middle=1"), "one of near, far"),
        (("--limit", "far=away"), "must be a number"),
    ],
)
def test_what_the_settings_refuse(run, words, message):
    with pytest.raises(ValueError, match=message):
        run(*words)


def test_a_file_that_does_not_exist(run, tmp_path):
    with pytest.raises(InvalidStructureError, match=r"there is no list .*gone"):
        run(file=tmp_path / "gone")


def test_help_comes_from_the_docstring(run):
    text = run("--help").output
    for part in ("A file, such as this.txt.", "A choice.", "Number of inner steps.", "Own", "a,b"):
        assert part in text
    assert "second sentence" not in text
    assert "No option" not in text


def test_entries_of_a_docstring():
    assert attribute_help(Limits) == {"near": "Distance, Å.", "far": "Distance, Å."}
    assert attribute_help(Inner)["steps"] == "Number of inner steps."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("At 0.5 Å. More", "At 0.5 Å."),
        ("Formats: .traj, XYZ, ...", "Formats: .traj, XYZ, ..."),
        ("No stop", "No stop"),
    ],
)
def test_first_sentences(text, sentence):
    assert first_sentence(text) == sentence
