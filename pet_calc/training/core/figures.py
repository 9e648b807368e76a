"""Figures of a training, drawn without touching matplotlib's global state."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from scipy.special import erf

from pet_calc.io.runs.provenance import image_metadata, provenance
from pet_calc.models.dimers import FLOOR, Dimer

Array = NDArray[np.float64]

# Okabe and Ito's palette: distinct also for color-blind readers.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with its provenance."""
    figure.savefig(path, metadata=image_metadata(provenance(), path.suffix))


def learning_figure(log: Path, *, title: str = "") -> Figure:
    """Errors of forces and energies over the steps of a run, and where its stages begin.

    Parameters
    ----------
    log : Path
        ``log.csv`` of the run.
    title : str
    """
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{log} has no rows: nothing has been validated yet")
    values = {name: np.array([float(r[name]) for r in rows]) for name in rows[0]}
    step = values["step"]
    figure = Figure(figsize=(6.4, 5.2), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    forces, energy = figure.subplots(2, 1, sharex=True)
    forces.plot(step, values["train_forces_rmse"], color=COLORS[1], label="training, running")
    forces.plot(step, values["validation_forces_rmse"], color=COLORS[0], label="validation")
    forces.set_ylabel("force RMSE, meV/Å")
    forces.legend(frameon=False)
    energy.plot(step, values["validation_energy_mae"], color=COLORS[0])
    energy.set_ylabel("energy MAE, meV/atom")
    energy.set_xlabel("step")
    begins = step[1:][np.diff(values["stage"]) > 0]
    for axes in (forces, energy):
        shown = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
        if (shown > 0).any():  # else there are no labels, or the model is exact
            axes.set_yscale("log")
        axes.grid(visible=True, which="both", color="#DDDDDD", linewidth=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for begin in begins:
            axes.axvline(begin, color="#777777", linewidth=0.8, linestyle=":")
    if title:
        forces.set_title(title, loc="left")
    return figure


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
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def dimer_figure(found: Sequence[Dimer], *, title: str = "") -> Figure:
    """Energies of pairs of atoms alone, from that at the largest distance.

    Of few elements the curves, a panel for each; of many a map of the distance where the pair has
    gained 10 eV.

    Parameters
    ----------
    found : sequence of Dimer
        Every pair of some elements, at the same shares of their bond lengths.
    title : str
    """
    elements = sorted({z for d in found for z in d.numbers})
    columns = int(np.ceil(len(elements) ** 0.5))
    if len(elements) > 16:
        figure = Figure(figsize=(7.5, 7.0), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        place = {z: k for k, z in enumerate(elements)}
        closest = np.full((len(elements),) * 2, np.nan)
        for d in found:
            a, b = (place[z] for z in d.numbers)
            closest[a, b] = closest[b, a] = closest_approach(d, 10.0)
        axes = figure.subplots()
        image = axes.imshow(closest, cmap="viridis", interpolation="nearest")
        figure.colorbar(image, label="distance at 10 eV / sum of covalent radii", shrink=0.8)
        labels = [chemical_symbols[z] for z in elements]
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=4)
        axes.set_yticks(range(len(labels)), labels, fontsize=4)
        if title:
            axes.set_title(title, loc="left")
        return figure
    rows = -(-len(elements) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.6 * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for z, panel in zip(elements, panels, strict=False):
        for d in found:
            if z not in d.numbers:
                continue
            other = d.numbers[0] if d.numbers[1] == z else d.numbers[1]
            share = (d.distances / d.bond).numpy()
            energy = (d.energy - d.energy[-1]).numpy()
            panel.plot(share, energy, linewidth=1.0, label=chemical_symbols[other])
        panel.axvline(FLOOR, color="#777777", linewidth=0.8, linestyle=":")
        panel.set_title(f"{chemical_symbols[z]}-X", loc="left", fontsize=9)
        panel.set_ylim(-10.0, 40.0)
        panel.legend(frameon=False, fontsize=6, ncols=2)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    for panel in panels[len(elements) :]:
        panel.set_axis_off()
    figure.supxlabel("distance / sum of the covalent radii", fontsize=9)
    figure.supylabel("energy, eV", fontsize=9)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def closest_approach(dimer: Dimer, energy: float) -> float:
    """Largest share of the bond at which a pair has gained `energy` eV; NaN if none."""
    gained = (dimer.energy - dimer.energy[-1] > energy).numpy()
    share = (dimer.distances / dimer.bond).numpy()
    return float(share[gained].max()) if gained.any() else float("nan")
