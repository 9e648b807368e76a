"""Writes docs/api.md from the docstrings: python docs/make_api.py."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET = Path(__file__).parent / "api.md"

#: Documented modules, and what each is for.
MODULES = {
    "pet_calc": "What most work needs",
    "pet_calc.calculators": "Calculators",
    "pet_calc.workflows.relax": "Relaxation",
    "pet_calc.workflows.md": "Molecular dynamics",
    "pet_calc.workflows.guards": "Guards",
    "pet_calc.workflows.phonons": "Phonons and thermal expansion",
    "pet_calc.workflows.mechanics": "Equation of state, elastic constants, barriers",
    "pet_calc.workflows.observables": "Observables of trajectories",
    "pet_calc.workflows.report": "Reports",
    "pet_calc.crystals": "Properties and generation of crystals",
    "pet_calc.doctor": "Examination of a calculator",
}

HEAD = """# API reference

Generated from the docstrings by `python docs/make_api.py`; do not edit.

Every workflow is a function `(atoms, config, *, on_progress=None)`: the structure carries its
calculator, the configuration is a frozen dataclass that is checked when it is made, and
`on_progress` is called with a `Progress`. Units are those of ASE (eV, Å, amu) unless a docstring
says otherwise.
"""


def main() -> None:
    """Write the page."""
    TARGET.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole reference."""
    parts, known = [HEAD], set()
    for module, title in MODULES.items():
        parts.append(section(importlib.import_module(module), title, known))
    return "\n".join(parts)


def section(module: ModuleType, title: str, known: set[str]) -> str:
    """The public names of a module; those of an earlier one are only listed."""
    lines = [f"## {title}: `{module.__name__}`", ""]
    if module.__name__ != "pet_calc":
        lines += [first_paragraph(module.__doc__), ""]
    names = [name for name in module.__all__ if not name.startswith("__")]
    earlier = [name for name in names if name in known]
    for name in sorted(set(names) - known, key=str.lower):
        lines += [entry(name, getattr(module, name))]
    if earlier:
        lines += ["See above: " + ", ".join(f"`{name}`" for name in earlier) + ".", ""]
    known |= set(names)
    return "\n".join(lines)


def entry(name: str, value: Any) -> str:
    """Heading, signature and docstring of one name."""
    lines = [f"### `{name}`", ""]
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return "\n".join([*lines, constant(value), ""])
    if not (inspect.isclass(value) and issubclass(value, BaseException)):
        lines += ["```python", signature(name, value), "```", ""]
    lines += [markdown(inspect.getdoc(value) if inspect.isfunction(value) else value.__doc__), ""]
    if inspect.isclass(value):
        lines += members(value)
    return "\n".join(lines)


def constant(value: Any) -> str:
    """A value that is no function or class."""
    if isinstance(value, dict):
        return "A table by name: " + ", ".join(f"`{key}`" for key in value) + "."
    return f"`{value!r}`"


def signature(name: str, value: Any) -> str:
    """A call with one parameter a line, or in one line where it fits."""
    parameters = inspect.signature(value).parameters.values()
    shown, keyword_only = [], False
    for parameter in parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        keyword_only = keyword_only or parameter.kind is parameter.VAR_POSITIONAL
        shown.append(star + parameter.name + default(parameter))
    line = f"{name}({', '.join(shown)})"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + ")"


def default(parameter: inspect.Parameter) -> str:
    """Default of a parameter, where it has a plain one."""
    if parameter.default is parameter.empty:
        return ""
    text = repr(parameter.default)
    return "=..." if text.startswith("<") else f"={text}"


def members(value: type) -> list[str]:
    """Public methods and properties of a class that this package defines."""
    lines = []
    for base in reversed(value.__mro__):
        if not base.__module__.startswith("pet_calc"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or getattr(value, name) is None:
                continue
            function = getattr(member, "__func__", member)
            if isinstance(member, property):
                lines.append(f"- `.{name}`: {first_paragraph(member.__doc__)}")
            elif inspect.isfunction(function) and function.__doc__:
                call = signature(name, function).replace("cls, ", "").replace("(cls)", "()")
                call = " ".join(call.split()).replace("( ", "(").replace(", )", ")")
                lines.append(f"- `.{call}`: {first_paragraph(function.__doc__)}")
    unique = {line.split(":")[0].split("(")[0]: line for line in lines}
    return ["**Methods and properties**", "", *unique.values(), ""] if unique else []


def first_paragraph(text: str | None) -> str:
    """The summary of a docstring on one line."""
    return " ".join(plain(inspect.cleandoc(text or "")).split("\n\n")[0].split())


def markdown(text: str | None) -> str:
    """A docstring in NumPy style as markdown: sections become bold, their entries lists."""
    lines = plain(inspect.cleandoc(text or "")).split("\n")
    out: list[str] = []
    inside = False
    k = 0
    while k < len(lines):
        line = lines[k]
        ruled = k + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[k + 1])
        if ruled:
            inside = line in ("Parameters", "Attributes", "Returns", "Raises")
            out += [f"**{line}**", ""]
            k += 2
            continue
        if inside and line and not line.startswith(" "):
            name, _, kind = line.partition(" : ")
            out.append(f"- `{name}`{f' : {kind}' if kind else ''}")
        elif inside and line:
            out.append(f"  {line.strip()}")
        else:
            out.append(line)
        k += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).rstrip()


def plain(text: str) -> str:
    """Markup of Sphinx as that of markdown."""
    text = text.replace("``", "`")
    text = re.sub(r":(?:class|func|mod|meth):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    return re.sub(
        r"\.\. math::\s*\n?((?:.*\n?)(?:[ \t]+.*\n?|\n(?=[ \t]))*)",
        lambda found: "```math\n" + inspect.cleandoc(found[1]) + "\n```\n\n",
        text,
    )


if __name__ == "__main__":
    main()
