"""Figures of equations of state and of minimum-energy paths."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pet_calc.io.runs.figures import BLUE, ORANGE, panels
from pet_calc.workflows.mechanics.eos import EquationOfState
from pet_calc.workflows.mechanics.neb import MinimumEnergyPath


def eos_figure(result: EquationOfState, *, title: str = "") -> Figure:
    """Energy and pressure per atom volume, with the Birch–Murnaghan fit."""
    figure, (upper, lower) = panels(2, size=(6.0, 6.6), title=title, sharex=True)
    fit, n = result.fit, len(result.frames[0])
    v = np.linspace(result.volumes.min(), result.volumes.max(), 200)
    upper.plot(v / n, 1e3 * (fit.energy(v) - fit.E0) / n, color=BLUE, lw=1.6)
    upper.plot(
        result.volumes / n, 1e3 * (result.energies - fit.E0) / n, "o", color=ORANGE, ms=5, zorder=3
    )
    upper.set_ylabel("energy (meV/atom)")
    upper.set_title(
        f"$V_0$ = {fit.V0 / n:.4f} Å³/atom, $B_0$ = {fit.B0:.2f} ± {fit.B0_error:.2g} GPa, "
        f"$B_0'$ = {fit.B0_prime:.2f}",
        fontsize=9,
    )
    lower.plot(v / n, fit.pressure(v), color=BLUE, lw=1.6)
    lower.axhline(0.0, color="0.75", lw=0.8, zorder=0)
    lower.axvline(fit.V0 / n, color="0.75", lw=0.8, zorder=0)
    lower.set_ylabel("pressure (GPa)")
    lower.set_xlabel("volume (Å³/atom)")
    return figure


def neb_figure(result: MinimumEnergyPath, *, title: str = "") -> Figure:
    """Energy along the path, with the images and the barrier."""
    figure, (ax,) = panels(1, size=(6.0, 4.0), title=title)
    ax.plot(result.fit_path, result.fit_energies, color=BLUE, lw=1.6)
    ax.plot(result.path, result.energies, "o", color=ORANGE, ms=5, zorder=3)
    ax.axhline(0.0, color="0.75", lw=0.8, zorder=0)
    ax.set_xlabel("path (Å)")
    ax.set_ylabel("energy (eV)")
    note = "" if result.converged else f"; NOT converged, {result.fmax:.3f} eV/Å"
    ax.set_title(
        f"barrier {result.barrier:.3f} eV, reverse {result.reverse_barrier:.3f} eV{note}",
        fontsize=9,
    )
    return figure
