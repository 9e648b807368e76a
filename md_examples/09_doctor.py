"""Is a potential sound on your structure? Prints how wrong its forces are, and all that it found.

The number is the difference between forces and central differences of the energy, along random
directions: rounding for a sound calculator. Any ASE calculator can be examined.

    python md_examples/09_doctor.py                                   # water, a shipped potential
    python md_examples/09_doctor.py --structure POSCAR --model runs/mine/model
    python md_examples/09_doctor.py --structure POSCAR --calculator ase.calculators.emt:EMT
    python md_examples/09_doctor.py --smoke                           # the quick checks only
"""

import argparse

from ase.io import read

from pet_calc.cli.options import Potential
from pet_calc.doctor import DoctorConfig, examine
from pet_calc.workflows.water_box import water_box

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--structure", help="a file that ASE reads; without it a box of water")
parser.add_argument("--model", default="auto", help="name or path of a potential that covers it")
parser.add_argument("--calculator", help="another ASE calculator, module:factory")
parser.add_argument("--smoke", action="store_true", help="fewer samples, no dynamics, less water")
parser.add_argument("--out", help="not used: nothing is written")
options = parser.parse_args()

if options.structure:
    atoms = read(options.structure)
else:
    atoms = water_box(molecules=8 if options.smoke else 32, density=1.0, seed=1)
calculator = Potential(options.model, options.calculator).load("float32")
# the same potential in double precision: what is wrong with a model shows without the rounding
twin = None
if options.calculator is None:
    twin = Potential(options.model).load("float64")

report = examine(atoms, calculator, twin=twin, settings=DoctorConfig(quick=options.smoke))
for finding in report.findings:
    print(f"{finding.verdict!s:15s} {finding.check}: {finding.found}")

forces = report["forces against energy differences"].values
print(f"error of the forces  {forces['error']:.1e} {forces['unit']}")
print(f"verdict              {report.verdict}")
