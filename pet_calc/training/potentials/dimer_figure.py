"""Figures of pairs of atoms alone, as a potential sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pet_calc.models.dimers import FLOOR, Dimer
from pet_calc.training.core.figures import hide_frame


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
    draw = distance_map if len(elements) > 16 else energy_curves
    return draw(found, elements, title)


def distance_map(found: Sequence[Dimer], elements: Sequence[int], title: str) -> Figure:
    """Color of each pair: where it has gained 10 eV."""
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


def energy_curves(found: Sequence[Dimer], elements: Sequence[int], title: str) -> Figure:
    """A panel for each element, with its curves beside every other."""
    columns = int(np.ceil(len(elements) ** 0.5))
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
        hide_frame(panel)
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
