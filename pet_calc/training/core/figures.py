"""Figures of a training, drawn without touching matplotlib's global state."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from scipy.special import erf

from pet_calc.io.runs.provenance import image_metadata, provenance

Array = NDArray[np.float64]

# Okabe and Ito's palette: distinct also for color-blind readers.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with its provenance."""
    figure.savefig(path, metadata=image_metadata(provenance(), path.suffix))


def learning_figure(
    log: Path, panels: Mapping[str, Mapping[str, str]], *, title: str = ""
) -> Figure:
    """Columns of the log of a training over its steps, and where its stages begin.

    Parameters
    ----------
    log : Path
        ``log.csv`` of the run; the first column is the abscissa.
    panels : mapping of str to mapping of str to str
        For each panel the label of its axis, and the columns in it with their legends.
    title : str
    """
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{log} has no rows: nothing has been validated yet")
    values = {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}
    abscissa = next(iter(values))
    step = values[abscissa]
    figure = Figure(figsize=(6.4, 0.4 + 2.4 * len(panels)), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False).ravel()
    begins = step[1:][np.diff(values.get("stage", np.zeros(len(step)))) > 0]
    for axes, (label, columns) in zip(every, panels.items(), strict=True):
        # a marker, since a line of one point is invisible
        for (column, legend), color in zip(columns.items(), COLORS, strict=False):
            axes.plot(step, values[column], ".-", markersize=4, color=color, label=legend)
        if any((values[c] > 0).any() for c in columns):  # else no labels, or an exact model
            axes.set_yscale("log")
        axes.set_ylabel(label)
        if len(columns) > 1:
            axes.legend(frameon=False)
        axes.grid(visible=True, which="both", color="#DDDDDD", linewidth=0.5)
        for begin in begins:
            axes.axvline(begin, color="#777777", linewidth=0.8, linestyle=":")
        hide_frame(axes)
    every[-1].set_xlabel(abscissa)
    every[0].set_xlim(left=0)
    if title:
        every[0].set_title(title, loc="left")
    return figure


def hide_frame(axes: Axes) -> None:
    """Leave the axes without their upper and right line."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def reliability_figure(
    errors: Mapping[str, tuple[Array, Array]], *, unit: str = "meV/atom", title: str = ""
) -> Figure:
    r"""How uncertainties fit the errors that they stand for.

    Left: size of each error over its σ, with the lines \|e\| = σ and 2σ. Right: share of errors
    within z σ, beside that of a normal distribution.

    Parameters
    ----------
    errors : mapping of str to (errors, sigmas)
        For each split, arrays (n,).
    unit : str
    title : str
    """
    figure = Figure(figsize=(9.0, 4.0), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    scatter, share = figure.subplots(1, 2)
    every = np.concatenate([s for _, s in errors.values()])
    ends = np.array([0.8 * every.min(), 1.25 * every.max()])
    for k, name in ((1, "σ"), (2, "2σ")):
        scatter.plot(ends, k * ends, color="#777777", linewidth=1.0, linestyle=("-", "--")[k - 1])
        scatter.annotate(f"|e| = {name}", (ends[1], k * ends[1]), fontsize=8, ha="right")
    z = np.linspace(0.0, 3.0, 121)
    share.plot(z, erf(z / 2**0.5), color="#777777", label="normal distribution")
    for (split, (e, s)), color in zip(errors.items(), COLORS, strict=False):
        scatter.plot(s, np.abs(e), ".", color=color, label=f"{split} ({len(e)})")
        within = (np.abs(e / s)[:, None] < z).mean(0)
        share.plot(z, within, color=color, label=f"{split} ({len(e)})")
    scatter.set_xscale("log")
    scatter.set_yscale("log")
    # σ spans about a decade, of which the default labels too much or too little
    scatter.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    scatter.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    scatter.xaxis.set_minor_formatter(NullFormatter())
    scatter.set_xlabel(f"σ, {unit}")
    scatter.set_ylabel(f"size of the error, {unit}")
    share.set_xlabel("z")
    share.set_ylabel("share of errors below z σ")
    share.set_ylim(0.0, 1.02)
    for axes in (scatter, share):
        axes.legend(frameon=False, fontsize=8)
        hide_frame(axes)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure
