"""Interactive 3-D view of structures: chemiscope and its data, inside the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

import numpy as np
from ase import Atoms

from pet_calc.errors import MissingDependencyError

#: Positions are written to this many decimals of an ångström.
DECIMALS = 4

#: Crystals of up to this many atoms are shown as 3 x 3 x 3 cells.
SMALL_CELL = 8

HTML = """<section id="viewer-section">
<h2>$title</h2>
<p id="viewer-message"></p>
<div id="viewer-meta" hidden></div>
<div id="viewer">$panels</div>
<div id="viewer-info"></div>
<p class="lead" style="margin:10px 0 0">$caption</p>
</section>"""

START = """
(function () {
  "use strict";
  var say = function (text) { document.getElementById("viewer-message").textContent = text; };
  var data = JSON.parse(document.getElementById("viewer-data").textContent);
  var warnings = new Chemiscope.Warnings();
  warnings.addHandler(function (text) { say(text); });
  Chemiscope.%(kind)s.load(%(config)s, data, warnings).then(function () {
    document.documentElement.dataset.viewer = "ready";
  }).catch(function (error) {
    document.documentElement.dataset.viewer = "failed";
    say("The 3-D view cannot be shown: " + error.message);
    console.error(error);
  });
})();
"""


@dataclass(frozen=True, eq=False)
class Structures:
    """What the 3-D view shows.

    Attributes
    ----------
    frames : sequence of ase.Atoms
    properties : mapping of str to (values, unit)
        Numbers by frame, drawn against each other beside the structure; a click on a point shows
        its frame. The first is the horizontal axis, the second the vertical one.
    caption : str
    trajectory : bool
        Frames follow one another in time: joined by a line, and played without turning the view.
    most_atoms : int
        Atoms in all; of more frames, equally spaced ones are kept, the first and the last among
        them. The page grows by about 30 bytes for each.
    """

    frames: Sequence[Atoms]
    properties: Mapping[str, tuple[Sequence[float], str]] = field(default_factory=dict)
    caption: str = ""
    trajectory: bool = True
    most_atoms: int = 100_000

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise ValueError("a 3-D view needs at least one structure, got none")
        for name, (values, _) in self.properties.items():
            if len(values) != len(self.frames):
                raise ValueError(
                    f"property {name!r} must have a value for each of the {len(self.frames)} "
                    f"frames, got {len(values)}"
                )

    def chosen(self) -> list[int]:
        """Indices of the frames that are shown."""
        largest = max(len(a) for a in self.frames)
        kept = min(len(self.frames), max(2, self.most_atoms // max(largest, 1)))
        return [round(x) for x in np.linspace(0, len(self.frames) - 1, kept).tolist()]


@dataclass(frozen=True)
class Viewer:
    """Parts of the page that make the 3-D view.

    Attributes
    ----------
    html : str
        The section.
    scripts : str
        Data, library and start, for the end of the page.
    columns : str
        Of the grid: structure alone, or beside the plot of the properties.
    credit : str
        Whose viewer it is.
    """

    html: str
    scripts: str
    columns: str
    credit: str

    @classmethod
    def of(cls, structures: Structures, title: str) -> Viewer:
        """Make the view of some structures."""
        chemiscope, library = _chemiscope()
        chosen = structures.chosen()
        frames = [_plain(structures.frames[k]) for k in chosen]
        finite = {
            name: {
                "target": "structure",
                "values": [float(values[k]) for k in chosen],
                **({"units": unit} if unit else {}),
            }
            for name, (values, unit) in structures.properties.items()
            if all(math.isfinite(values[k]) for k in chosen)
        }
        plot = len(finite) >= 2 and len(frames) > 1
        heading = "Structure" if len(frames) == 1 else "Structures"
        heading = "Trajectory" if structures.trajectory and len(frames) > 1 else heading
        # a few atoms of a crystal say little without their neighbors
        small = all(a.pbc.all() and len(a) <= SMALL_CELL for a in frames)
        axes = dict(zip(("x", "y"), finite, strict=False)) if plot else {}
        data: dict[str, Any] = chemiscope.create_input(
            structures=frames,
            properties=finite or None,
            metadata={"name": title},
            settings=chemiscope.quick_settings(
                trajectory=structures.trajectory,
                periodic=any(a.pbc.any() for a in frames),
                structure_settings={"supercell": [3, 3, 3]} if small else None,
                **axes,
            ),
        )
        for structure in data["structures"]:
            for axis in "xyz":
                structure[axis] = [round(x, DECIMALS) for x in structure[axis]]
        caption = structures.caption
        if len(chosen) < len(structures.frames):
            caption += f" {len(chosen)} of {len(structures.frames)} frames, equally spaced."
        ids = ["structure", *(["map"] if plot else [])]
        config = {k: f"viewer-{k}" for k in ("meta", "info", *ids)}
        panels = "".join(f'<div id="viewer-{k}"></div>' for k in ids)
        kind = "DefaultVisualizer" if plot else "StructureVisualizer"
        return cls(
            html=HTML.replace("$title", heading)
            .replace("$panels", panels)
            .replace("$caption", escape(caption.strip())),
            scripts="\n".join(
                [
                    f'<script type="application/json" id="viewer-data">{_json(data)}</script>',
                    f"<script>{_script(library)}</script>",
                    f"<script>{START % {'kind': kind, 'config': _json(config)}}</script>",
                ]
            ),
            columns="1fr 1fr" if plot else "1fr",
            credit=f"chemiscope {chemiscope.__version__} (chemiscope.org, BSD-3-Clause)",
        )


def require_viewer() -> None:
    """Raise `MissingDependencyError` if there is no chemiscope, before the work for a report."""
    _chemiscope()


def _chemiscope() -> tuple[Any, str]:
    """The package, and the library for the browser that its wheel carries."""
    try:
        import chemiscope
    except ImportError as error:
        raise MissingDependencyError(
            "the 3-D view of a report needs chemiscope, which is not installed; "
            'pip install "pet-calc[report]", or leave the structures out'
        ) from error
    bundle = resources.files(chemiscope) / "sphinx" / "static" / "chemiscope.min.js"
    if not bundle.is_file():
        raise MissingDependencyError(
            f"chemiscope {chemiscope.__version__} does not contain chemiscope.min.js where version "
            '1.1 has it; install chemiscope 1.1 ("pip install chemiscope==1.1.*")'
        )
    return chemiscope, bundle.read_text(encoding="utf-8")


def _plain(atoms: Atoms) -> Atoms:
    """Symbols, positions (wrapped into the cell) and cell: all that the view needs."""
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if plain.pbc.any():
        plain.wrap(eps=1e-4)
    return plain


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _script(source: str) -> str:
    """A script that cannot end its element; within JavaScript's strings the meaning is the same."""
    return source.replace("</script", "<\\/script")
