"""Figure of a run of molecular dynamics."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pet_calc.io.runs.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    error_band,
    legend,
    new_figure,
    plain,
)
from pet_calc.workflows.md.log import MDLog, drift_per_atom
from pet_calc.workflows.observables.rdf import Peak, RadialDistribution
from pet_calc.workflows.observables.water import SKINNER_2013, WaterStructure
from pet_calc.workflows.statistics import Estimate


def md_figure(
    log: MDLog,
    n_atoms: int,
    *,
    title: str = "",
    target_temperature: float | None = None,
    water: WaterStructure | None = None,
    equilibration: float = 0.0,
) -> Figure:
    """Temperature, energies and conserved energy over time; for water, g_OO beside experiment.

    Parameters
    ----------
    log : MDLog
        Record of the run.
    n_atoms : int
        Energies are drawn per atom.
    title : str
        Heading of the figure.
    target_temperature : float, optional
        Temperature of the thermostat, K, drawn as a line.
    water : WaterStructure, optional
        Adds the panel of g_OO(r) with the measured first peak.
    equilibration : float
        Time in fs that averages leave out; shaded, and left out of the drift.
    """
    wide = water is not None
    figure = new_figure(11.0 if wide else 6.4, 6.6, title)
    grid = figure.add_gridspec(3, 2 if wide else 1, width_ratios=(1, 1.05) if wide else (1,))
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[row, 0], sharex=axes[0]) for row in (1, 2)]
    unit, scale = ("ps", 1e-3) if log.time[-1] >= 2000.0 else ("fs", 1.0)
    time = log.time * scale
    for ax in axes:
        plain(ax)
        if equilibration > 0:
            ax.axvspan(0.0, equilibration * scale, color="0.95", lw=0, zorder=0)
    if equilibration > 0:
        axes[0].annotate(
            "not averaged",
            (0.5 * equilibration * scale, 0.03),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=7,
            color=GREY,
        )
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    _temperature(axes[0], time, log, target_temperature)
    _energies(axes[1], time, log, n_atoms)
    _conserved(axes[2], time, log, n_atoms, equilibration)
    axes[2].set_xlabel(f"time ({unit})")
    if len(time) > 1:
        axes[2].set_xlim(time[0], time[-1])
    if water is not None:
        _oxygen(figure.add_subplot(grid[:, 1]), water.g_OO, water.first_peak)
    return figure


def _temperature(ax: Axes, time: NDArray[np.float64], log: MDLog, target: float | None) -> None:
    ax.plot(time, log.temperature, color=RED, lw=1.0)
    if target is not None:
        ax.axhline(target, color=GREY, lw=1.2, ls="--", label=f"thermostat {target:g} K")
        legend(ax)
    ax.set_ylabel("temperature (K)")


def _energies(ax: Axes, time: NDArray[np.float64], log: MDLog, n_atoms: int) -> None:
    per_atom = 1e3 / n_atoms
    ax.plot(
        time, per_atom * (log.potential - log.potential[0]), color=BLUE, lw=1.0, label="potential"
    )
    ax.plot(time, per_atom * (log.kinetic - log.kinetic[0]), color=ORANGE, lw=1.0, label="kinetic")
    ax.plot(
        time, per_atom * (log.conserved - log.conserved[0]), color=GREEN, lw=1.5, label="conserved"
    )
    ax.set_ylabel("energy since start\n(meV/atom)")
    legend(ax, 3)


def _conserved(
    ax: Axes, time: NDArray[np.float64], log: MDLog, n_atoms: int, equilibration: float
) -> None:
    energy = 1e3 / n_atoms * (log.conserved - log.conserved[0])
    ax.plot(time, energy, color=GREEN, lw=1.0)
    slope = drift_per_atom(log.after(equilibration), n_atoms)
    if math.isfinite(slope.value):
        kept = log.time >= equilibration
        ps = log.time[kept] / 1e3
        ax.plot(
            time[kept],
            energy[kept].mean() + slope.value * (ps - ps.mean()),
            color="black",
            lw=1.2,
            ls="--",
            label=f"drift {slope} meV/atom/ps",
        )
        legend(ax)
    ax.set_ylabel("conserved energy\n(meV/atom)")


def _oxygen(ax: Axes, rdf: RadialDistribution, peak: Peak) -> None:
    plain(ax)
    experiment = SKINNER_2013
    ax.axhline(1.0, color="0.75", lw=0.8)
    error_band(ax, rdf.r, rdf.g, rdf.error, BLUE)
    ax.plot(rdf.r, rdf.g, color=BLUE, lw=2.0, label=f"this run ({rdf.n_frames} frames)")
    ax.axvline(experiment.position, color=RED, lw=1.0, ls=":")
    ax.errorbar(
        experiment.position,
        experiment.height,
        xerr=experiment.position_error,
        yerr=experiment.height_error,
        fmt="o",
        ms=6,
        color=RED,
        capsize=3,
        zorder=4,
        label="X-ray, first peak: "
        f"{experiment.position:.2f}({100 * experiment.position_error:.0f}) Å, "
        f"height {experiment.height:.2f}({100 * experiment.height_error:.0f})\n"
        f"{experiment.source}",
    )
    ax.plot(
        peak.position,
        peak.height,
        "v",
        ms=7,
        color="black",
        label=f"first peak: {Estimate(peak.position, peak.position_error)}"
        f" Å, height {Estimate(peak.height, peak.height_error)}",
    )
    ax.set_xlabel("r (Å)")
    ax.set_ylabel("$g_\\mathrm{OO}(r)$")
    ax.set_xlim(2.0, rdf.r[-1])
    ax.set_ylim(0.0, 1.35 * max(float(rdf.g.max()), experiment.height))
    legend(ax, loc="upper right")
