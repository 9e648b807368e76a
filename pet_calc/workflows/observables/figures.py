"""Figure of an analysis: one panel for each observable with a curve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pet_calc.io.runs.figures import COLORS, error_band, legend, panels
from pet_calc.workflows.observables.analysis import Analysis, Columns
from pet_calc.workflows.observables.water import SKINNER_2013
from pet_calc.workflows.statistics import block_mean

Array = NDArray[np.float64]


def analysis_figure(analysis: Analysis, *, title: str = "") -> Figure:
    """Draw the curves of an analysis.

    Raises
    ------
    ValueError
        If the analysis has no curve.
    """
    drawn = [(name, PANELS[name]) for name in PANELS if name in analysis.tables]
    if not drawn:
        raise ValueError("there is nothing to draw: no observable with a curve was computed")
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, axes = panels(
        rows,
        columns,
        size=(5.4 * columns + 0.4, 3.5 * rows + 0.4),
        title=title or f"{analysis.formula}: {analysis.n_frames} frames",
    )
    for ax, (name, draw) in zip(axes, drawn, strict=False):
        draw(ax, analysis, analysis.tables[name])
    for ax in axes[len(drawn) :]:
        ax.remove()
    return figure


def _values(table: Columns, name: str) -> Array:
    return np.asarray(table[name], dtype=np.float64)


def _rdf(ax: Axes, analysis: Analysis, table: Columns) -> None:
    r = _values(table, "r_A")
    names = [c for c in table if c.startswith("g_") and not c.endswith("_error")]
    water = names == ["g_OO", "g_OH", "g_HH"]
    ax.axhline(1.0, color="0.75", lw=0.8)
    top = 0.0
    for name, color in zip(names, np.resize(COLORS, len(names)).tolist(), strict=True):
        g, error = _values(table, name), _values(table, f"{name}_error")
        label = f"$g_\\mathrm{{{name[2:]}}}$"
        error_band(ax, r, g, error, color)
        ax.plot(r, g, color=color, lw=1.5, label=label)
        outer = g[r > 1.3] if water else g  # the covalent bond would dwarf all else
        top = max(top, float(outer.max(initial=0.0)))
    if water:
        e = SKINNER_2013
        ax.errorbar(
            *(e.position, e.height, e.height_error, e.position_error),
            fmt="o",
            ms=5,
            color="black",
            capsize=2,
            zorder=4,
            label="O–O, X-ray",
        )
        top = max(top, e.height)
    ax.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0.0, r[-1]), ylim=(0.0, 1.15 * (top or 1.0)))
    legend(ax, 2 if len(names) > 5 else 1)


def _diffusion(ax: Axes, analysis: Analysis, table: Columns) -> None:
    lag = _values(table, "lag_fs") * 1e-3
    names = [c for c in table if c.endswith("_A2") and "error" not in c]
    for name, color in zip(names, np.resize(COLORS, len(names)).tolist(), strict=True):
        symbol = name.split("_")[1]
        msd, error = _values(table, name), _values(table, f"msd_{symbol}_error_A2")
        label = symbol
        found = next((q for q in analysis.quantities if q.name == f"D of {symbol}"), None)
        if found is not None:
            label += f": {found.estimate} {found.unit}"
        error_band(ax, lag, msd, error, color)
        ax.plot(lag, msd, color=color, lw=1.6, label=label)
    ax.set(xlabel="time (ps)", ylabel="mean-square displacement (Å²)", xlim=(0, lag[-1]))
    ax.set_ylim(bottom=0.0)
    legend(ax, 2 if len(names) > 5 else 1)


def _vdos(ax: Axes, analysis: Analysis, table: Columns) -> None:
    x, total = _values(table, "wavenumber_per_cm"), _values(table, "vdos_per_THz")
    names = [c for c in table if c not in ("vdos_per_THz", "vdos_error_per_THz")]
    names = [c for c in names if c.startswith("vdos_")]
    ax.fill_between(x, 0, total, color="0.85", lw=0, label="total")
    if len(names) > 1:
        for name, color in zip(names, np.resize(COLORS, len(names)).tolist(), strict=True):
            ax.plot(x, _values(table, name), color=color, lw=1.2, label=name.split("_")[1])
        legend(ax, 2 if len(names) > 5 else 1)
    else:
        ax.plot(x, total, color=COLORS[0], lw=1.3)
    last = x[np.flatnonzero(total > 0.004 * total.max())[-1]]
    ax.set(xlabel="wavenumber (cm⁻¹)", ylabel="VDOS (1/THz)", xlim=(0, 1.1 * last))
    ax.set_ylim(0.0, 1.1 * total.max())


def _hydrogen_bonds(ax: Axes, analysis: Analysis, table: Columns) -> None:
    n, part = _values(table, "bonds"), _values(table, "fraction_of_molecules")
    mean = analysis.value("hydrogen bonds per molecule")
    ax.bar(n, 100 * part, color=COLORS[0], width=0.7, label=f"mean {mean}")
    ax.set(xlabel="hydrogen bonds of a molecule", ylabel="molecules (%)")
    ax.set_xticks(n)
    legend(ax)


def _order(ax: Axes, analysis: Analysis, table: Columns) -> None:
    shells, pairs = _values(table, "shell"), [str(p) for p in table["pair"]]
    names = [p for p in dict.fromkeys(pairs) if len(set(p.split("-"))) == 2]
    n_shells = int(shells.max())
    width = 0.8 / n_shells
    ax.axhline(0.0, color="0.4", lw=0.8)
    for shell in range(1, n_shells + 1):
        rows = [k for k, p in enumerate(pairs) if p in names and shells[k] == shell]
        r = _values(table, "distance_A")[rows[0]]
        ax.bar(
            np.arange(len(names)) + (shell - 0.5 - n_shells / 2) * width,
            _values(table, "alpha")[rows],
            width=0.92 * width,
            yerr=np.nan_to_num(_values(table, "alpha_error")[rows]),
            error_kw={"elinewidth": 1.0, "capsize": 2.0},
            color=COLORS[shell - 1],
            label=f"shell {shell}, {r:.2f} Å",
        )
    ax.set_xticks(np.arange(len(names)), names, fontsize=9, rotation=30 if len(names) > 6 else 0)
    ax.set_ylabel("Warren-Cowley α")
    ax.grid(visible=False, axis="x")
    ax.margins(y=0.2)
    legend(ax)


def _series(label: str) -> Callable[[Axes, Analysis, Columns], None]:
    def draw(ax: Axes, analysis: Analysis, table: Columns) -> None:
        x_name, y_name = table
        x, y = _values(table, x_name), _values(table, y_name)
        in_time = x_name == "time_fs"
        x = x * 1e-3 if in_time else x
        ax.plot(x, y, color=COLORS[0], lw=1.0)
        ax.axhline(y.mean(), color="0.3", lw=1.0, ls="--", label=f"mean {block_mean(y)}")
        ax.set(xlabel="time (ps)" if in_time else "frame", ylabel=label)
        ax.ticklabel_format(useOffset=False)
        legend(ax)

    return draw


PANELS: dict[str, Callable[[Axes, Analysis, Columns], None]] = {
    "rdf": _rdf,
    "order": _order,
    "diffusion": _diffusion,
    "vdos": _vdos,
    "hydrogen-bonds": _hydrogen_bonds,
    "density": _series("density (g/cm³)"),
    "lattice": _series("lattice constant (Å)"),
}
"""Panels in their order, by observable."""
