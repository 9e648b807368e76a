"""Crystals of Cu3Au from the formula alone; prints the best ones and the space group of the first.

Experiment: the ordered phase is L1_2, Pm-3m (221). With ASE's EMT, the potential here, the search
finds it within 1 meV/atom of another order of the same fcc lattice, I4/mmm (139), that EMT prefers.

    python md_examples/06_generate_crystals.py            # 24 candidates with 4 and 8 atoms
    python md_examples/06_generate_crystals.py --smoke    # 4 candidates with 4 atoms
"""

import argparse
from pathlib import Path

from ase.calculators.emt import EMT

from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.pipeline import generate
from pet_calc.crystals.generation.results import write_results
from pet_calc.workflows.relax import RelaxConfig

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="few candidates and steps")
parser.add_argument("--out", default="generate_Cu3Au", help="output folder")
options = parser.parse_args()

config = GenerateConfig(
    formula="Cu3Au",
    z=(1,) if options.smoke else (1, 2),
    n=4 if options.smoke else 24,
    relax=RelaxConfig(cell="free", fmax=0.03, steps=20 if options.smoke else 300),
)
result = generate(config, EMT(), options.out)
write_results(result, Path(options.out), {"formula": config.formula}, config.symprec)
for c in result.kept[:5]:
    print(f"{c.proposal.id:28s} {c.energy:9.5f} eV/atom   {c.space_group}")
print(f"best crystal of Cu3Au   {result.kept[0].space_group}")
