"""The proton of acetylacetone between its two oxygen atoms; prints how often it changes sides.

The enol is relaxed and then heated to 600 K with the potential in the folder `acetylacetone` beside
this file (its card says how it was trained and how large its errors are). Printed are the length of
the hydrogen bond at rest and on average, and the number of transfers: how often the proton gets
0.2 Å nearer to the other oxygen atom.

    python md_examples/14_acetylacetone.py            # 0.5 ps
    python md_examples/14_acetylacetone.py --smoke    # a few steps
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from pet_calc import PETCalculator
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.relax import RelaxConfig, relax

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="a few steps")
parser.add_argument("--temperature", type=float, default=600.0, help="K")
parser.add_argument("--out", type=Path, default=Path("acetylacetone_md"), help="output folder")
options = parser.parse_args()

# O=C-CH=C-OH with two methyl groups, flat but for their hydrogen atoms
atoms = Atoms(
    "OCCCOCCH8",
    [
        [-1.27, 1.97, 0.0], [-1.22, 0.72, 0.0], [0.0, 0.0, 0.0], [1.20, 0.67, 0.0],
        [1.25, 2.00, 0.0], [-2.52, -0.07, 0.0], [2.46, -0.13, 0.0], [0.30, 2.30, 0.0],
        [0.0, -1.08, 0.0], [-3.37, 0.61, 0.0], [-2.57, -0.71, 0.88], [-2.57, -0.71, -0.88],
        [3.33, 0.53, 0.0], [2.50, -0.77, 0.88], [2.50, -0.77, -0.88],
    ],
)  # fmt: skip
left, right, proton = 0, 4, 7
atoms.calc = PETCalculator(Path(__file__).parent / "acetylacetone", dtype="float64")
relaxed = relax(atoms, RelaxConfig(fmax=0.01)).atoms
print(f"O-H...O at rest      {relaxed.get_distance(left, right):.2f} Å")

molecule = Atoms(relaxed.symbols, relaxed.positions)
molecule.calc = PETCalculator(Path(__file__).parent / "acetylacetone")
config = MDConfig(
    ensemble="nvt-langevin",
    temperature=options.temperature,  # K
    timestep=0.5,  # fs
    tau=50.0,  # fs
    steps=20 if options.smoke else 1000,
    frame_interval=2,
    seed=1,
)
with ProgressBar() as progress:
    result = run_md(molecule, config, options.out, on_progress=progress)

frames = read(result.trajectory_file, index=":")
bond = np.array([a.get_distance(left, right) for a in frames])
nearer = np.array([a.get_distance(proton, left) - a.get_distance(proton, right) for a in frames])
sides = np.sign(nearer[np.abs(nearer) > 0.2])
time = config.steps * config.timestep / 1000
print(f"O-H...O on average   {bond.mean():.2f} Å, between {bond.min():.2f} and {bond.max():.2f}")
print(f"mean temperature     {result.mean_temperature} K")
print(f"proton transfers     {np.count_nonzero(np.diff(sides))} in {time:g} ps")
