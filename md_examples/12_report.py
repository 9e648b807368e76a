"""A run and a page about it that works without a network; prints the mean temperature.

The page holds the figure, a table of your own, and the trajectory in 3-D beside its energies; its
size is printed, too. Needs chemiscope: pip install "pet-calc[report]".

    python md_examples/12_report.py            # copper with EMT, 2 ps
    python md_examples/12_report.py --smoke    # a few steps
"""

import argparse
from pathlib import Path

from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

from pet_calc.io.runs.provenance import provenance
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.md.figures import md_figure
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.report import Picture, Section, Structures, Table, Text, write_report

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="a few steps")
parser.add_argument("--out", type=Path, default=Path("report"), help="output folder")
options = parser.parse_args()

atoms = bulk("Cu", cubic=True) * (2, 2, 2)
atoms.calc = EMT()
config = MDConfig(
    ensemble="nvt-bussi",
    temperature=300.0,  # K
    timestep=2.0,  # fs
    tau=50.0,  # fs
    steps=40 if options.smoke else 1000,
    frame_interval=4,
    seed=1,
)
with ProgressBar() as progress:
    result = run_md(atoms, config, options.out, on_progress=progress)

frames = read(result.trajectory_file, index=":")
energies = [frame.get_potential_energy() / len(frame) for frame in frames]
times = [k * config.frame_interval * config.timestep for k in range(len(frames))]
page = write_report(
    options.out / "report.html",
    "Copper at 300 K",
    [
        Section("Results", [
            Table(
                ("quantity", "value", "unit"),
                [("mean temperature", str(result.mean_temperature), "K"),
                 ("drift", str(result.drift), "meV/atom/ps")],
            ),
            Text("The Bussi thermostat leaves the motion of the atoms nearly as it is."),
        ]),
        Section("Figure", [Picture.from_figure(md_figure(result.log, len(atoms)), "The run.")]),
    ],
    structures=Structures(
        frames, {"time": (times, "fs"), "potential energy per atom": (energies, "eV")}
    ),
    provenance=provenance(atoms.calc, seed=config.seed),
)  # fmt: skip
print(f"mean temperature     {result.mean_temperature} K")
print(f"page                 {page}, {page.stat().st_size / 1e6:.1f} MB, {len(frames)} frames")
