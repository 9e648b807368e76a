"""Options of a verb from the fields of dataclasses, so that each option is declared once.

A verb is a function, some of whose parameters are annotated with a dataclass::

    @options_of(out=Path("eos_out"))
    def eos(context: typer.Context, settings: Annotated[EosConfig, "Volumes"]) -> None: ...

On the command line every field of these is an option of its own. It has the field's name, type
and default (other defaults are arguments of `options_of`); its help is the first sentence of the
field's entry in the section ``Attributes`` of the docstring. The verb receives the dataclasses,
made and thus checked. A text beside the dataclass is the
heading of its options in the help. What a field's ``metadata`` may add:

``flag``
    How the option is written, instead of ``--name`` (``--name/--no-name`` for a bool).
``argument``
    True for a positional argument.
``file``
    For the path of a file that must exist: what it is called if it does not.
``panel``
    Heading in the help, instead of that of its dataclass (also a class attribute ``panel``).
``options``
    For a field that is a dataclass itself: which of its fields are options, a mapping from their
    names there to those of the options. Fields that are None there have no option.
``words``
    For a field that is a dataclass of numbers: name of one option that takes ``name=value`` and
    may be repeated.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from pet_calc.errors import InvalidStructureError

Verb = Callable[..., None]


def options_of(**defaults: Any) -> Callable[[Verb], Verb]:
    """Decorate a verb: parameters that are dataclasses become an option per field.

    Parameters
    ----------
    defaults
        Defaults that differ from those of the fields, under the names of the options.
    """

    def decorate(verb: Verb) -> Verb:
        hints = get_type_hints(verb, include_extras=True)
        groups, parameters = {}, []
        for name, own in inspect.signature(verb).parameters.items():
            kind, *panel = (
                get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
            )
            if is_dataclass(kind):
                groups[name] = kind
                parameters += list(parameters_of(kind, defaults, *panel))
            else:
                parameters.append(
                    own.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
                )

        def run(**values: Any) -> None:
            made = {name: make(kind, values) for name, kind in groups.items()}
            if "context" in values:
                values["context"].params.update(words_of(made.values()))
            others = {name: values[name] for name in hints if name in values.keys() - made}
            verb(**others, **made)

        run.__name__, run.__doc__, run.__module__ = verb.__name__, verb.__doc__, verb.__module__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def parameters_of(
    kind: Any,
    defaults: Mapping[str, Any],
    panel: str | None = None,
    names: Mapping[str, str] | None = None,
    base: Any = None,
) -> Iterator[inspect.Parameter]:
    """The options of a dataclass as parameters that typer reads.

    Parameters
    ----------
    kind : type
    defaults : mapping
        Defaults of options that differ from those of the fields.
    panel : str, optional
        Heading in the help.
    names : mapping, optional
        Fields that are options, with the names of these; by default all, with their own.
    base : object of that type, optional
        Whose values are the defaults, instead of those of the fields.
    """
    texts, hints = attribute_help(kind), hints_of(kind)
    panel = panel or getattr(kind, "panel", None)
    for f in fields(kind):
        shown, text = f.metadata.get("panel", panel), texts.get(f.name, "")
        name = f.name if names is None else names.get(f.name)
        value = default_of(f) if base is None else getattr(base, f.name)
        if name is None:
            continue
        if "words" in f.metadata:
            words = f.metadata["words"]
            option = typer.Option(
                f"--{words}",
                help=text,
                show_default=False,
                metavar="NAME=VALUE",
                rich_help_panel=shown,
            )
            yield parameter(words, Annotated[list[str], option], ())
        elif "options" in f.metadata:
            yield from parameters_of(
                hints[f.name], defaults, shown, f.metadata["options"], default_of(f)
            )
        else:
            yield option_of(name, f, hints[f.name], text, defaults.get(name, value), shown)


def option_of(
    name: str, f: Field[Any], hint: Any, text: str, default: Any, panel: str | None
) -> inspect.Parameter:
    """One field as a parameter that typer reads."""
    kind = without_none(hint)
    settings: dict[str, Any] = {"help": text, "rich_help_panel": panel}
    if default is None or default == () or default == "":
        settings["show_default"] = False
    if get_origin(kind) is tuple:
        settings |= {"parser": parser_of(kind), "metavar": f"{get_args(kind)[0].__name__},..."}
        if default not in (None, (), MISSING):
            settings["show_default"] = ",".join(map(str, default))
        hint = list[Any]
    if f.metadata.get("argument"):
        return parameter(name, Annotated[hint, typer.Argument(**settings)], default)
    flag = f.metadata.get("flag") or f"--{name.replace('_', '-')}"
    if kind is bool and "flag" not in f.metadata:
        flag = f"{flag}/--no-{flag[2:]}"
    return parameter(name, Annotated[hint, typer.Option(flag, **settings)], default)


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A keyword; without a default it must be given."""
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=annotation,
        default=empty if default is MISSING else default,
    )


def make(
    kind: Any, values: Mapping[str, Any], names: Mapping[str, str] | None = None, base: Any = None
) -> Any:
    """A dataclass from the values of its options; `names` and `base` as in `parameters_of`."""
    given: dict[str, Any] = {}
    hints = hints_of(kind)
    for f in fields(kind):
        name = f.name if names is None else names.get(f.name)
        if name is None:
            continue
        if "words" in f.metadata:
            option = f.metadata["words"]
            given[f.name] = from_words(type(default_of(f)), values[option], option)
        elif "options" in f.metadata:
            given[f.name] = make(hints[f.name], values, f.metadata["options"], default_of(f))
        else:
            given[f.name] = value_of(hints[f.name], values[name])
    made = kind(**given) if base is None else replace(base, **given)
    for f in fields(kind):
        if "file" in f.metadata and given.get(f.name) is not None:
            require_file(given[f.name], f.metadata["file"])
    return made


def require_file(path: Path, what: str) -> None:
    """Refuse a path at which there is no file.

    Raises
    ------
    InvalidStructureError
    """
    if not path.is_file():
        raise InvalidStructureError(f"there is no {what} {path}; check the path")


def value_of(hint: Any, value: Any) -> Any:
    """The value of a field; an option of a tuple may be repeated, and each time hold several."""
    if get_origin(without_none(hint)) is not tuple:
        return value
    # of an option that was not given, typer makes an empty list
    return tuple(plain(value)) if value or without_none(hint) is hint else None


def from_words(kind: Any, words: list[str], option: str) -> Any:
    """A dataclass of numbers from ``name=value`` words; the others keep their defaults.

    Raises
    ------
    ValueError
        For a name that is none, or a value that is no number.
    """
    values = {}
    known = [f.name for f in fields(kind)]
    for word in words:
        name, _, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise ValueError(
                f"`{option}` must be name=value with one of {', '.join(known)}, got {word!r}"
            )
        try:
            values[name] = float(value)
        except ValueError as error:
            raise ValueError(f"`{option}` {name} must be a number, got {value!r}") from error
    return kind(**values)


def words_of(made: Iterable[Any]) -> dict[str, list[str]]:
    """All values of the options that take words, so that settings are recorded in full."""
    return {
        f.metadata["words"]: [
            f"{name}={value}"
            for name, value in asdict(getattr(group, f.name)).items()
            if value is not None
        ]
        for group in made
        for f in fields(group)
        if "words" in f.metadata
    }


def default_of(f: Field[Any]) -> Any:
    """Default of a field; `MISSING` if it must be given."""
    return f.default if f.default_factory is MISSING else f.default_factory()


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def without_none(hint: Any) -> Any:
    """The type of an optional value."""
    if get_origin(hint) in (Union, UnionType):
        (kind,) = (a for a in get_args(hint) if a is not type(None))
        return kind
    return hint


def parser_of(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Reads a tuple from a text with commas (numbers: also spaces or x)."""
    item = get_args(kind)[0]

    def parse(value: Any) -> tuple[Any, ...]:
        if item is str:
            return tuple(word.strip() for word in str(value).split(",") if word.strip())
        try:
            return tuple(item(word) for word in re.split(r"[\s,;x]+", str(value).strip(" []()")))
        except ValueError as error:
            what = "whole numbers" if item is int else "numbers"
            raise typer.BadParameter(
                f"write {what} separated by commas, as in 1,2,4, got {value!r}"
            ) from error

    return parse


@cache
def attribute_help(kind: Any) -> dict[str, str]:
    """First sentence of each entry in the section ``Attributes`` of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes\n----------\n")
        names: list[str] = []
        lines: list[str] = []
        for line in [*section.split("\n"), "end"]:
            if line.startswith(" ") or not line:
                lines.append(line.strip())
                continue
            texts |= dict.fromkeys(names, first_sentence(" ".join(lines)))
            names, lines = [n.strip() for n in line.partition(" :")[0].split(",")], []
    return texts


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, without the marks of literals."""
    found = re.match(r"(.*?[^.]\.)(\s|$)", text.strip())
    return (found[1] if found else text).replace("`", "").strip()


def plain(value: Any) -> Any:
    """A path as text, tuples (of tuples) as one list; other values as they are."""
    if isinstance(value, list | tuple):
        return [x for v in value for x in (plain(v) if isinstance(v, list | tuple) else [plain(v)])]
    return str(value) if isinstance(value, Path) else value
