"""From a rattled crystal to its elastic constants; prints C11, C12, C44 and the bulk modulus twice.

The bulk modulus of the equation of state and (C11 + 2 C12)/3 of a cubic crystal are one number by
two ways. Experiment for Si: C11 165.7, C12 63.9, C44 79.6 GPa, so that B = 97.8 GPa (McSkimin and
Andreatch, J. Appl. Phys. 35, 2161 (1964)).

    python md_examples/04_relax_to_elastic.py                       # Si, a shipped potential
    python md_examples/04_relax_to_elastic.py --element Cu --model runs/my-copper
    python md_examples/04_relax_to_elastic.py --smoke               # Cu with EMT, seconds
"""

import argparse
from pathlib import Path

from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc import PETCalculator
from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.provenance import json_text, provenance
from pet_calc.workflows.mechanics.config import ElasticConfig, EosConfig
from pet_calc.workflows.mechanics.elastic import elastic_constants, elastic_summary
from pet_calc.workflows.mechanics.eos import equation_of_state
from pet_calc.workflows.mechanics.figures import eos_figure
from pet_calc.workflows.relax import RelaxConfig, relax
from pet_calc.workflows.relax.symmetry import space_group

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--element", default="Si", help="an element that crystallizes in a cubic cell")
parser.add_argument("--model", default="auto", help="name or path of a potential that covers it")
parser.add_argument("--smoke", action="store_true", help="copper with EMT, few strains")
parser.add_argument("--out", default="relax_to_elastic", help="output folder")
options = parser.parse_args()

element = "Cu" if options.smoke else options.element
crystal = bulk(element, cubic=True)
crystal.rattle(0.02, seed=1)
# float64: the differences of stress between small strains must stay above the rounding
crystal.calc = EMT() if options.smoke else PETCalculator(options.model, dtype="float64")

config = RelaxConfig("bfgs", cell="free", fmax=1e-4)
result = relax(crystal, config)
if not result.converged:
    raise SystemExit(f"{result.status}: {result.reason}")
relaxed = result.atoms
print(f"relaxed              {result.steps} steps, {result.fmax:.1e} eV/Å")
print(f"space group          {space_group(crystal, 1e-2)} -> {space_group(relaxed, 1e-2)}")
print(f"lattice constant     {relaxed.get_volume() ** (1 / 3):.4f} Å")

relaxed.calc = crystal.calc
points = 3 if options.smoke else 5
elastic = elastic_constants(relaxed, ElasticConfig(strain=0.004, points=points, relax=False))
eos = equation_of_state(relaxed, EosConfig(span=(0.96, 1.04), relax=False))

for name, i, j in (("C11", 0, 0), ("C12", 0, 1), ("C44", 3, 3)):
    print(f"{name}                  {elastic.C[i, j]:.1f} ± {elastic.C_error[i, j]:.1g} GPa")
print(f"stable               {elastic.stable}")
print(f"B from elasticity    {elastic.moduli['K_Hill']:.1f} GPa")
print(f"B from E(V)          {eos.fit.B0:.1f} GPa")

origin = provenance(crystal.calc)
out = Path(options.out)
out.mkdir(parents=True, exist_ok=True)
(out / "elastic.json").write_text(json_text(elastic_summary(elastic), origin), encoding="utf-8")
save_figure(eos_figure(eos, title=element), out / "eos.png", origin)
