"""What ``pet-calc md`` leaves beside trajectory and log: g(r) of water, a figure, a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from pet_calc.cli.run import Run
    from pet_calc.workflows.md import MDResult
    from pet_calc.workflows.observables import WaterStructure

FIGURE, RDF_TABLE = "md.png", "rdf.csv"


def analyze_water(result: MDResult, discard: float) -> WaterStructure:
    """g(r) of the frames after the discarded part."""
    from ase.io.trajectory import Trajectory

    from pet_calc.workflows.observables import water_structure

    with Trajectory(result.trajectory_file) as frames:
        first = min(round(discard * len(frames)), len(frames) - 1)
        return water_structure(frames[i] for i in range(first, len(frames)))


def write_rdfs(water: WaterStructure, run: Run) -> None:
    """The three g(r) and their errors as CSV."""
    curves = (water.g_OO, water.g_OH, water.g_HH)
    names = ["g_" + "".join(rdf.pair) for rdf in curves]
    rows = [
        [f"{r:.5f}", *(f"{x:.6g}" for rdf in curves for x in (rdf.g[k], rdf.error[k]))]
        for k, r in enumerate(water.g_OO.r)
    ]
    run.write_csv(RDF_TABLE, ["r_A", *(x for n in names for x in (n, f"{n}_error"))], rows)


def draw(
    result: MDResult,
    water: WaterStructure | None,
    path: Path,
    *,
    discard: float,
    title: str,
    origin: dict[str, Any],
) -> None:
    """The figure of the run, with its provenance."""
    from pet_calc.io.runs.figures import save_figure
    from pet_calc.workflows.md.figures import md_figure

    config = result.config
    held = config.ensemble != "nve" and config.temperature_end is None
    target = config.temperature if held else None
    save_figure(
        md_figure(
            result.log,
            len(result.atoms),
            title=f"{title}: {len(result.atoms)} atoms, {config.timestep:g} fs steps",
            target_temperature=target,
            water=water,
            equilibration=discard * result.log.time[-1],
        ),
        path,
        origin,
    )


def summary(result: MDResult, water: WaterStructure | None, discard: float, run: Run) -> Table:
    """The closing table."""
    from rich.table import Table

    from pet_calc.workflows.md.log import drift_per_atom
    from pet_calc.workflows.observables import SKINNER_2013
    from pet_calc.workflows.statistics import Estimate, block_mean

    log = result.log
    kept = log.after(discard * log.time[-1])
    table = Table(title="Molecular dynamics", show_header=False)
    table.add_row("simulated", f"{log.time[-1] / 1e3:.4g} ps in {log.step[-1]} steps")
    table.add_row("mean temperature", f"{block_mean(kept.temperature)} K")
    table.add_row(
        "drift of conserved energy", f"{drift_per_atom(kept, len(result.atoms))} meV/atom/ps"
    )
    if result.config.constant_pressure:
        table.add_row("mean pressure", f"{block_mean(kept.pressure)} GPa")
        table.add_row("mean volume", f"{block_mean(kept.volume)} Å³")
        table.add_row("mean density", f"{block_mean(kept.density)} g/cm³")
    if result.config.swap_interval:
        table.add_row("accepted swap moves", f"{100 * log.swap_acceptance[-1]:.1f} %")
    if water is not None:
        peak = water.first_peak
        position = Estimate(peak.position, peak.position_error)
        height = Estimate(peak.height, peak.height_error)
        table.add_row("g_OO first peak", f"{position} Å, height {height}")
        table.add_row(
            "  experiment",
            f"{SKINNER_2013.position:.2f} ± {SKINNER_2013.position_error:.2f} Å, "
            f"height {SKINNER_2013.height:.2f} ± {SKINNER_2013.height_error:.2f} (X-ray)",
        )
    table.add_row("speed", f"{result.ns_per_day:.3g} ns/day")
    table.add_row(f"files in {run.out}", run.files())
    return table
