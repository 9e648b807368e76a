"""NbMoTaW from 2500 K to 300 K with swap Monte Carlo; prints the Mo-Ta order at each temperature.

The number is the Warren-Cowley parameter of Mo and Ta in the first shell, 1 - p/c, where p is the
part of Ta among the eight neighbors of a Mo atom and c that in the alloy: 0 for a random solution,
negative where the two attract each other. Mo and Ta order like CsCl when it gets cold, so that it
falls with the temperature [Kostiuchenko et al., npj Comput. Mater. 5, 55 (2019)].

    python md_examples/02_nbmotaw_swaps.py            # 72 atoms; 1000 steps per temperature
    python md_examples/02_nbmotaw_swaps.py --smoke    # a few steps, to see that it works
    python md_examples/02_nbmotaw_swaps.py --calculator my_module:my_calculator
"""

import argparse
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import read
from ase.neighborlist import neighbor_list

from pet_calc.cli.options import Potential
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.progress import ProgressBar

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="few atoms and steps")
parser.add_argument("--steps", type=int, default=1000, help="steps per temperature")
parser.add_argument("--calculator", help="another ASE calculator, module:factory")
parser.add_argument("--out", type=Path, default=Path("nbmotaw"), help="output folder")
options = parser.parse_args()

lattice = bulk("Mo", "bcc", a=3.24, cubic=True)  # Å, the mean of the four elements
sites = lattice * ((2, 2, 2) if options.smoke else (3, 3, 4))
atoms = sites.copy()
species = np.resize(["Nb", "Mo", "Ta", "W"], len(atoms))
atoms.symbols = np.random.default_rng(1).permutation(species)
# without --calculator the shipped potential that covers the four elements
atoms.calc = Potential(calculator=options.calculator).load("float32")

# the first shell lies half way between the first and the second neighbors
center, neighbor = neighbor_list("ij", sites, 0.5 * (3**0.5 / 2 + 1) * 3.24)


def mo_ta_order(symbols: np.ndarray) -> float:
    """Warren-Cowley parameter of Mo and Ta in the first shell."""
    around_mo = symbols[neighbor[symbols[center] == "Mo"]]
    return float(1.0 - (around_mo == "Ta").mean() / (symbols == "Ta").mean())


for temperature in (2500, 1000, 300):
    config = MDConfig(
        ensemble="npt-mtk-iso",
        temperature=temperature,  # K
        pressure=0.0,  # GPa
        timestep=2.0,  # fs
        steps=10 if options.smoke else options.steps,
        swap_interval=5,
        swap_attempts=5,
        frame_interval=5,
        seed=1,
    )
    with ProgressBar() as progress:
        result = run_md(atoms, config, options.out / f"{temperature}K", on_progress=progress)
    atoms = result.atoms  # the next, lower temperature goes on from here
    frames = read(result.trajectory_file, index=":")
    order = [mo_ta_order(np.array(frame.get_chemical_symbols())) for frame in frames]
    print(
        f"{temperature:5d} K   Mo-Ta order {np.mean(order[len(order) // 2 :]):6.3f}   "
        f"{100 * result.log.swap_acceptance[-1]:.0f} % of swaps accepted   "
        f"{result.log.density[-1]:.2f} g/cm³"
    )
