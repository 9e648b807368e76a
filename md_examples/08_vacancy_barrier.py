"""How a vacancy moves in an fcc metal; prints the barrier of its hop to a neighboring site.

Experiment for Cu: 0.70 eV (Ehrhart et al., Landolt-Börnstein III/25 (1991)).

    python md_examples/08_vacancy_barrier.py                       # Cu, a shipped potential
    python md_examples/08_vacancy_barrier.py --element Ni
    python md_examples/08_vacancy_barrier.py --smoke               # Cu with EMT, a coarse band
"""

import argparse
from pathlib import Path

from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc import PETCalculator
from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.provenance import json_text, provenance
from pet_calc.workflows.mechanics.config import NebConfig
from pet_calc.workflows.mechanics.figures import neb_figure
from pet_calc.workflows.mechanics.neb import minimum_energy_path, neb_summary
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.relax import RelaxConfig, relax

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--element", default="Cu", help="one that crystallizes in fcc")
parser.add_argument("--model", default="auto", help="name or path of a potential that covers it")
parser.add_argument("--repeat", type=int, default=2, help="conventional cells along each axis")
parser.add_argument("--smoke", action="store_true", help="EMT, three images, loose forces")
parser.add_argument("--out", default="vacancy", help="output folder")
options = parser.parse_args()

calculator = EMT() if options.smoke else PETCalculator(options.model, dtype="float64")
crystal = bulk(options.element, cubic=True)
crystal.calc = calculator
crystal = relax(crystal, RelaxConfig("bfgs", cell="isotropic", fmax=1e-3)).atoms

# the atom of a nearest neighbor goes to the empty site; both ends have their atoms in one order
sites = crystal.repeat(options.repeat)
distances = sites.get_distances(0, range(1, len(sites)), mic=True)
neighbor = 1 + int(distances.argmin())
start, end = sites.copy(), sites.copy()
end.positions[neighbor] = sites.positions[0]
del start[0], end[0]

config = NebConfig(images=3 if options.smoke else 5, fmax=0.2 if options.smoke else 0.03)
start.calc = calculator
with ProgressBar() as progress:
    path = minimum_energy_path(start, end, config, on_progress=progress)
print(f"band                 {'converged' if path.converged else 'NOT converged'}")
print(f"lattice constant     {crystal.cell[0, 0]:.4f} Å")
print(f"barrier              {path.barrier:.3f} eV")
print("experiment, Cu       0.70 eV")

origin = provenance(calculator)
out = Path(options.out)
out.mkdir(parents=True, exist_ok=True)
(out / "neb.json").write_text(json_text(neb_summary(path), origin), encoding="utf-8")
save_figure(neb_figure(path, title=f"vacancy in {options.element}"), out / "neb.png", origin)
