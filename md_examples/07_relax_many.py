"""Elements and B2 compounds of Nb, Mo, Ta and W relaxed in one call; prints who orders most.

Ten rattled cells, atoms and lattice free, with their space groups before and after. The number is
the formation energy of each compound from its elements, both relaxed here: negative where the two
like to alternate. Mo and Ta do most [Kostiuchenko et al., npj Comput. Mater. 5, 55 (2019)].

    python md_examples/07_relax_many.py            # ten cells with the shipped potential
    python md_examples/07_relax_many.py --smoke    # three of them, a few steps
"""

import argparse
import itertools
import time

from ase.build import bulk

from pet_calc import PETCalculator
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.relax import RelaxConfig, relax_all
from pet_calc.workflows.relax.symmetry import space_group

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="Mo, Ta and MoTa only, a few steps")
parser.add_argument("--model", default="auto", help="name or path of a potential that covers them")
parser.add_argument("--out", help="not used: nothing is written")
options = parser.parse_args()

elements = ("Mo", "Ta") if options.smoke else ("Nb", "Mo", "Ta", "W")
names = [(e, e) for e in elements] + list(itertools.combinations(elements, 2))
# float64, as for everything that ends in small differences of energy; one for all of them
calculator = PETCalculator(options.model, dtype="float64")
crystals = []
for k, pair in enumerate(names):
    cell = bulk(pair[0], "bcc", a=3.24, cubic=True)  # Å, the mean of the four elements
    cell.symbols = list(pair)
    cell.rattle(0.05, seed=k)
    cell.calc = calculator
    crystals.append(cell)

config = RelaxConfig(cell="free", fmax=0.05 if options.smoke else 0.005, steps=200)
began = time.perf_counter()
with ProgressBar() as progress:
    results = relax_all(crystals, config, on_progress=progress)
seconds = time.perf_counter() - began

energy = {pair: r.energy / 2 for pair, r in zip(names, results, strict=True) if r.atoms is not None}
found = {}
for pair, start, r in zip(names, crystals, results, strict=True):
    name = pair[0] if pair[0] == pair[1] else "".join(pair)
    if r.atoms is None:
        print(f"{name:5s} {r.status}: {r.reason}")
        continue
    a, b = pair
    found[name] = 1e3 * (energy[pair] - (energy[a, a] + energy[b, b]) / 2)
    print(
        f"{name:5s} {r.status} in {r.steps} steps   "
        f"{space_group(start, 0.01)} -> {space_group(r.atoms, 0.01)}   "
        f"formation {found[name]:7.1f} meV/atom"
    )
best = min((n for n in found if n not in elements), key=lambda n: found[n])
print(f"orders most   {best}, {found[best]:.1f} meV/atom")
print(f"{sum(r.converged for r in results)} of {len(results)} converged in {seconds:.1f} s")
