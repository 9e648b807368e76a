"""A run that a guard stops; prints the step, the cause, the two atoms, and what is kept.

A time step of 2.5 fs is five times too long for the O-H bond, whose vibration takes 10 fs: within
a few steps two atoms come closer than in all that the potential was trained on. The number is their
distance when the guard looked, beside that in the last good frame; from there 0.5 fs goes on.

    python md_examples/10_guards.py            # 200 steps from the last good frame
    python md_examples/10_guards.py --smoke    # a few
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ase.io import read

from pet_calc import PETCalculator
from pet_calc.workflows.guards import GuardConfig, SimulationStopped
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.water_box import water_box

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="few steps from the last good frame")
parser.add_argument("--out", type=Path, default=Path("guards"), help="output folder")
options = parser.parse_args()

atoms = water_box(molecules=32, density=1.0, seed=1)
atoms.calc = PETCalculator("pet-water-v1")
config = MDConfig(
    ensemble="nvt-langevin",
    temperature=300.0,  # K
    timestep=2.5,  # fs
    tau=100.0,  # fs
    steps=200,
    frame_interval=1,
    guards=GuardConfig(distance_margin=0.2),  # of the closest distance trained; the default
    seed=1,
)
try:
    run_md(atoms, config, options.out / "2.5fs")
except SimulationStopped as stop:
    stopped = stop
else:
    raise SystemExit("nothing stopped this run: the guards do not work")

good = read(stopped.last_good_frame)
frames = read(options.out / "2.5fs" / "trajectory.traj", index=":")
names = " and ".join(f"{good.symbols[k]} {k}" for k in stopped.atoms)
print(f"stopped at step      {stopped.step}, of {config.steps}")
print(f"cause                {stopped.cause}")
print(f"atoms                {names or 'all'}")
if len(stopped.atoms) == 2:
    print(f"last good distance   {good.get_distance(*stopped.atoms, mic=True):.3f} Å")
print(f"last good frame      step {stopped.last_good_step}, {stopped.last_good_frame}")
print(f"frames kept          {len(frames)}, none of them broken")

good.calc = atoms.calc
shorter = replace(config, timestep=0.5, steps=5 if options.smoke else 200)
result = run_md(good, shorter, options.out / "0.5fs")
print(f"from there, 0.5 fs   {result.log.step[-1]} steps without a stop")
