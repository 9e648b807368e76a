"""The page: sections of text, tables and pictures, written as one HTML file."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import pet_calc
from pet_calc.workflows.report.viewer import Structures, Viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def html(self) -> str:
        """The item as HTML."""
        return f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Table:
    """Rows of values; numbers are shown with six digits.

    Attributes
    ----------
    columns : sequence of str
        Headings.
    rows : sequence of sequences
        Each as long as `columns`.
    caption : str
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(
                f"a table of {len(self.columns)} columns needs rows of as many values, got "
                f"{len(wrong[0])}: {wrong[0]}"
            )

    def html(self) -> str:
        """The item as HTML."""
        head = "".join(f"<th>{escape(str(c))}</th>" for c in self.columns)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(_shown(x))}</td>" for x in row) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        kind = ' class="wide"' if len(self.columns) > 4 else ""
        return (
            f'<div class="scroll"><table{kind}>{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(x) for x in value)
    return str(value)


@dataclass(frozen=True)
class Picture:
    """A PNG picture.

    Attributes
    ----------
    png : bytes
    caption : str
        Also read out to those who cannot see it.
    width : int or None
        CSS pixels; by default its own, at most the page's.
    """

    png: bytes
    caption: str = ""
    width: int | None = None

    def __post_init__(self) -> None:
        if not self.png.startswith(b"\x89PNG"):
            raise ValueError("a picture of a report must be PNG, got other data")

    @classmethod
    def from_file(cls, path: Path | str, caption: str = "") -> Picture:
        """Read a .png file."""
        return cls(Path(path).read_bytes(), caption)

    @classmethod
    def from_figure(cls, figure: Figure, caption: str = "") -> Picture:
        """Draw a matplotlib figure, sharp on a screen of double resolution."""
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=192)
        return cls(data.getvalue(), caption, width=round(96 * figure.get_figwidth()))

    def html(self) -> str:
        """The item as HTML."""
        data = base64.b64encode(self.png).decode("ascii")
        width = "" if self.width is None else f' width="{self.width}"'
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<figure><img alt="{escape(self.caption or "figure")}"{width} '
            f'src="data:image/png;base64,{data}">{caption}</figure>'
        )


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    items: Sequence[Text | Table | Picture] = field(default_factory=tuple)

    def html(self) -> str:
        """The section as HTML."""
        body = "\n".join(item.html() for item in self.items)
        return f"<section>\n<h2>{escape(self.title)}</h2>\n{body}\n</section>"


def write_report(
    path: Path | str,
    title: str,
    sections: Iterable[Section],
    *,
    lead: str = "",
    structures: Structures | None = None,
    settings: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a self-contained HTML page.

    Parameters
    ----------
    path : Path or str
        Replaced if it exists, whole or not at all.
    title : str
    sections : iterable of Section
        In the order of the page. Text is escaped, so that names of files may hold anything.
    lead : str
        Line below the title.
    structures : Structures, optional
        Interactive 3-D view; needs chemiscope.
    settings, provenance : mapping, optional
        Shown at the end, folded; mappings within them become dotted names. The second is a record
        of :func:`pet_calc.io.runs.provenance.provenance`.

    Raises
    ------
    MissingDependencyError
        If there are structures and chemiscope is not installed.
    """
    path = Path(path)
    viewer = None if structures is None else Viewer.of(structures, title)
    origin = [
        f"<section>\n<details><summary>{name}</summary>\n{_flat_table(values).html()}\n</details>"
        "\n</section>"
        for name, values in (("Settings", settings), ("Provenance", provenance))
        if values
    ]
    page = Template(
        resources.files("pet_calc.workflows.report").joinpath("page.html").read_text("utf-8")
    )
    text = page.substitute(
        title=escape(title),
        lead=escape(lead),
        generator=f"pet_calc {pet_calc.__version__}",
        sections="\n".join(section.html() for section in sections),
        columns="1fr" if viewer is None else viewer.columns,
        viewer="" if viewer is None else viewer.html,
        scripts="" if viewer is None else viewer.scripts,
        origin="\n".join(origin),
        footer=f"Written by pet_calc {pet_calc.__version__}."
        + ("" if viewer is None else f" 3-D view: {escape(viewer.credit)}."),
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _flat_table(values: Mapping[str, Any]) -> Table:
    return Table(("name", "value"), list(flatten(values)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names and values of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
