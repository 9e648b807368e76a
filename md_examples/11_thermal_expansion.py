"""Thermal expansion of copper in the quasi-harmonic approximation; prints it at 300 K.

Experiment: the length grows by 16.7e-6 per K at 300 K [Kroeger and Swenson, J. Appl. Phys. 48, 853
(1977)]. The potential here is ASE's EMT. Expansion comes from third derivatives, and is a hard test
of a potential: look at the whole curve in qha.png, not at one temperature.

    python md_examples/11_thermal_expansion.py                 # EMT
    python md_examples/11_thermal_expansion.py --model NAME    # a PET that covers Cu
    python md_examples/11_thermal_expansion.py --smoke         # EMT, small supercells
"""

import argparse

from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc import PETCalculator
from pet_calc.workflows.phonons import PhononConfig, QHAConfig, quasi_harmonic, write_qha

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", help="name or path of a PET that covers Cu, instead of EMT")
parser.add_argument("--smoke", action="store_true", help="small supercells, five volumes")
parser.add_argument("--out", default="thermal_expansion", help="output folder")
options = parser.parse_args()

atoms = bulk("Cu", a=3.62)
atoms.calc = EMT() if options.model is None else PETCalculator(options.model, dtype="float64")
phonons = PhononConfig(
    min_length=7.0 if options.smoke else 10.0,  # Å
    displacements="reduced" if options.model is None else "full",  # PET may be asymmetric
    mesh=20.0 if options.smoke else 60.0,  # Å
    t_max=400.0,  # K
)
config = QHAConfig(points=5 if options.smoke else 7, span=(0.97, 1.05), phonons=phonons)
result = quasi_harmonic(atoms, config, on_progress=print)
write_qha(result, options.out, title="copper")

for line in result.warnings:
    print(f"warning: {line}")
linear = 1e6 * result.at(300.0, "thermal_expansion") / 3
print(f"volume               {result.at(300.0, 'volume'):.3f} Å³/atom at 300 K")
print(f"bulk modulus         {result.at(300.0, 'bulk_modulus'):.1f} GPa at 300 K")
print(f"linear expansion     {linear:.1f}e-6 per K at 300 K")
print("experiment           16.7e-6 per K")
