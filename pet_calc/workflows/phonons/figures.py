"""Figures of phonons and of the quasi-harmonic approximation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pet_calc.io.runs.figures import BLUE, COLORS, GREEN, GREY, RED, legend, panels
from pet_calc.units import EV_TO_KJ_PER_MOL, K_B
from pet_calc.workflows.phonons.qha import QHAResult
from pet_calc.workflows.phonons.spectrum import DensityOfStates, Segment, Spectrum

Array = NDArray[np.float64]
#: Heat capacity of classical vibrations, J/(K mol) of atoms.
DULONG_PETIT = 3 * 1000 * K_B * EV_TO_KJ_PER_MOL


def phonon_figure(
    spectrum: Spectrum,
    *,
    title: str = "",
    reference: Spectrum | None = None,
    names: tuple[str, str] = ("this potential", "reference"),
) -> Figure:
    """Bands along the path beside the density of states.

    Parameters
    ----------
    spectrum : Spectrum
    title : str
    reference : Spectrum, optional
        Bands of the same structure type, drawn behind; their path is stretched onto that of
        `spectrum`.
    names : tuple of str
        Of the two in the legend.
    """
    figure, (bands, dos) = panels(
        1, 2, size=(8.0, 4.6), title=title, sharey=True, width_ratios=(3.2, 1)
    )
    if reference is not None:
        stretch = spectrum.segments[-1].distance[-1] / reference.segments[-1].distance[-1]
        _bands(bands, reference.segments, color=GREY, stretch=stretch, lw=2.4, label=names[1])
    own = names[0] if reference is not None else None
    _bands(bands, spectrum.segments, color=BLUE, lw=1.4, label=own)
    _path(bands, spectrum.segments)
    if reference is not None:
        legend(bands, loc="upper right")
    bands.set_ylabel("frequency (THz)")
    _dos(dos, spectrum.dos)
    top = max(float(s.frequencies.max()) for s in spectrum.segments)
    if reference is not None:
        top = max(top, *(float(s.frequencies.max()) for s in reference.segments))
    bottom = 0.0 if spectrum.stable else 1.08 * spectrum.lowest
    bands.set_ylim(bottom, 1.05 * top)
    for ax in (bands, dos):
        ax.grid(visible=False)
        if not spectrum.stable:
            ax.axhspan(bottom, 0.0, color=RED, alpha=0.08, lw=0)
            ax.axhline(0.0, color="0.3", lw=0.8)
    if not spectrum.stable:
        bands.annotate(
            "imaginary", (0.01, 0.02), xycoords="axes fraction", fontsize=8, color=RED, va="bottom"
        )
    return figure


def _bands(
    ax: Axes,
    segments: tuple[Segment, ...],
    *,
    color: str,
    lw: float,
    label: str | None,
    stretch: float = 1.0,
) -> None:
    for k, s in enumerate(segments):
        lines = ax.plot(stretch * s.distance, s.frequencies, color=color, lw=lw)
        if k == 0 and label is not None:
            lines[0].set_label(label)


def _path(ax: Axes, segments: tuple[Segment, ...]) -> None:
    ticks = [float(segments[0].distance[0])]
    labels = [segments[0].start]
    for s, following in zip(segments, (*segments[1:], None), strict=True):
        ticks.append(float(s.distance[-1]))
        jump = following is not None and following.start != s.end
        labels.append(f"{s.end}|{following.start}" if following is not None and jump else s.end)
    for x in ticks[1:-1]:
        ax.axvline(x, color="0.8", lw=0.8, zorder=0)
    ax.set_xticks(ticks, [subscript(x) for x in labels])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(ticks[0], ticks[-1])


def subscript(label: str) -> str:
    """``X_1`` as mathematics."""
    parts = label.split("|")
    typed = [f"{p.split('_')[0]}$_{{{p.split('_')[1]}}}$" if "_" in p else p for p in parts]
    return "|".join(typed)


def _dos(ax: Axes, dos: DensityOfStates) -> None:
    if not dos.projected:
        ax.fill_betweenx(dos.frequency, dos.total, color=BLUE, alpha=0.2, lw=0)
    ax.plot(dos.total, dos.frequency, color="0.25", lw=1.2, label="total")
    for k, (element, part) in enumerate(dos.projected.items()):
        color = COLORS[k % len(COLORS)]
        ax.fill_betweenx(dos.frequency, part, color=color, alpha=0.15, lw=0)
        ax.plot(part, dos.frequency, color=color, lw=1.2, label=element)
    if dos.projected:
        legend(ax)
    ax.set_xlim(0, 1.08 * float(dos.total.max()))
    ax.set_xlabel("states (1/THz)")


def qha_figure(result: QHAResult, *, title: str = "") -> Figure:
    """Free energy over volume, thermal expansion, bulk modulus and heat capacity."""
    figure, axes = panels(2, 2, size=(9.0, 6.6), title=title)
    _free_energy(axes[0], result)
    t = result.temperature
    for ax, values, name, color in (
        (axes[1], 1e6 * result.thermal_expansion, "thermal expansion of volume (10⁻⁶/K)", RED),
        (axes[2], result.bulk_modulus, "isothermal bulk modulus (GPa)", BLUE),
        (axes[3], result.heat_capacity_p, "$C_p$ (J K$^{-1}$ mol$^{-1}$ of atoms)", GREEN),
    ):
        ax.plot(t, values, color=color, lw=1.8)
        ax.set_xlabel("temperature (K)")
        ax.set_ylabel(name)
        ax.set_xlim(t[0], t[-1])
    axes[3].axhline(DULONG_PETIT, color=GREY, lw=1.0, ls="--", label="3R")
    legend(axes[3], loc="lower right")
    return figure


def _free_energy(ax: Axes, result: QHAResult) -> None:
    rows = np.unique(np.linspace(0, len(result.temperature) - 1, 6).round().astype(int))
    for k, row in enumerate(rows):
        color = str(0.75 - 0.65 * k / max(1, len(rows) - 1))
        zero = result.gibbs[row]
        curve = 1e3 * (result.free_energy[row] - zero)
        ax.plot(result.volumes, curve, "o-", ms=3, lw=1.0, color=color)
        ax.annotate(
            f"{result.temperature[row]:.0f} K",
            (result.volumes[0], curve[0]),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
            color=color,
        )
        ax.plot(result.volume[row], 0.0, "v", ms=6, color=RED)
    ax.set_xlabel("volume (Å³/atom)")
    ax.set_ylabel("free energy above its\nminimum (meV/atom)")
