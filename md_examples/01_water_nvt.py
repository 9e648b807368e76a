"""Liquid water at 300 K with the shipped PET potential; prints where g_OO(r) peaks first.

Experiment: 2.80(1) Å (Skinner et al., J. Chem. Phys. 138, 074506 (2013)).

    python md_examples/01_water_nvt.py            # 64 molecules, 2 ps
    python md_examples/01_water_nvt.py --smoke    # a few steps, to see that it works
"""

import argparse

from ase.io import read

from pet_calc import PETCalculator
from pet_calc.io.runs.figures import save_figure
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.md.figures import md_figure
from pet_calc.workflows.observables import SKINNER_2013, water_structure
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.water_box import water_box

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="few molecules and steps")
parser.add_argument("--out", default="water_nvt", help="output folder")
options = parser.parse_args()

atoms = water_box(molecules=16 if options.smoke else 64, density=1.0, seed=1)
atoms.calc = PETCalculator()

config = MDConfig(
    ensemble="nvt-langevin",
    temperature=300.0,  # K
    timestep=0.5,  # fs
    tau=100.0,  # fs
    steps=20 if options.smoke else 4000,
    frame_interval=2 if options.smoke else 20,
    seed=1,
)
with ProgressBar() as progress:
    result = run_md(atoms, config, options.out, on_progress=progress)

frames = read(result.trajectory_file, index=":")
water = water_structure(frames[len(frames) // 4 :])  # the first quarter equilibrates
save_figure(md_figure(result.log, len(atoms), water=water), f"{options.out}/water.png")

peak, experiment = water.first_peak, SKINNER_2013
print(f"mean temperature     {result.mean_temperature.value:.0f} K")
print(f"g_OO first peak      {peak.position:.2f} ± {peak.position_error:.2f} Å")
print(f"experiment           {experiment.position:.2f} ± {experiment.position_error:.2f} Å")
