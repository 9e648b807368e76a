"""Phonons of silicon; prints the frequency of the optical mode at Γ.

Experiment, at room temperature: 15.53 THz (Dolling, in Inelastic Scattering of Neutrons in Solids
and Liquids, IAEA, vol. II, 37 (1963)). DFT with PBE: 15.10 THz.

    python md_examples/05_si_phonons.py                    # a shipped potential that covers Si
    python md_examples/05_si_phonons.py --model FOLDER     # one of your own
    python md_examples/05_si_phonons.py --smoke            # a tiny supercell, to see that it works
"""

import argparse

from ase.build import bulk

from pet_calc import PETCalculator
from pet_calc.workflows.phonons import PhononConfig, phonons, write_phonons

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="auto", help="potential, by name or folder")
parser.add_argument("--smoke", action="store_true", help="tiny supercell, no relaxation")
parser.add_argument("--out", default="si_phonons", help="output folder")
options = parser.parse_args()

atoms = bulk("Si", a=5.47)
atoms.calc = PETCalculator(options.model, dtype="float64")

config = PhononConfig(
    relax=not options.smoke,
    min_length=7.0 if options.smoke else 12.0,  # Å
    displacements="reduced" if options.smoke else "full",  # PET has the symmetry approximately
    mesh=20.0 if options.smoke else 100.0,  # Å
)
result = phonons(atoms, config, on_progress=print)
write_phonons(result, options.out, title="silicon")

gamma = result.spectrum.points[0]
print(f"asymmetry removed    {result.report.asymmetry:.2g} eV/Å²")
print(f"lowest frequency     {result.spectrum.lowest:.2f} THz at {result.spectrum.lowest_place}")
print(f"optical mode at Γ    {gamma.frequencies[-1]:.2f} THz")
print("experiment           15.53 THz")
