"""Style of all figures, drawn without matplotlib's global state, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pet_calc.io.runs.provenance import image_metadata

# Okabe and Ito's palette: distinct also for color-blind readers.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
PURPLE, SKY = "#CC79A7", "#56B4E9"

#: For many curves: the palette without its light yellow, and darker shades for further ones.
COLORS = (
    *(BLUE, RED, GREEN, PURPLE, ORANGE, SKY),
    *("#444444", "#8C510A", "#5E3C99", "#1B7837"),
)


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches, with a heading."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


def panels(
    rows: int, columns: int = 1, *, size: tuple[float, float], title: str = "", **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of plain panels, row by row.

    Parameters
    ----------
    rows, columns : int
    size : tuple of float
        Width and height of the figure, inches.
    title : str
    subplots
        Further arguments of ``Figure.subplots``, such as ``sharex``.
    """
    figure = new_figure(*size, title)
    axes = list(figure.subplots(rows, columns, squeeze=False, **subplots).ravel())
    for ax in axes:
        plain(ax)
    return figure, axes


def plain(ax: Axes) -> None:
    """Leave axes without their upper and right line, and with a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", lw=0.6)
    ax.set_axisbelow(True)


def legend(
    ax: Axes, columns: int = 1, loc: Literal["best", "lower right", "upper right"] = "best"
) -> None:
    """A legend without a frame."""
    ax.legend(frameon=False, fontsize=8, ncols=columns, loc=loc)


def error_band(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    error: NDArray[np.float64],
    color: str,
) -> None:
    """A band of the standard errors around a curve, where they are known."""
    if np.isfinite(error).all():
        ax.fill_between(x, y - error, y + error, color=color, alpha=0.2, lw=0)


def save_figure(figure: Figure, path: Path | str, origin: Mapping[str, Any] | None = None) -> Path:
    """Write a figure; the format follows from the name's ending.

    `origin`, a record of :func:`pet_calc.io.runs.provenance.provenance`, goes into the file's
    metadata, where ``pet-calc show`` finds it.
    """
    path = Path(path)
    figure.savefig(path, metadata=None if origin is None else image_metadata(origin, path.suffix))
    return path
