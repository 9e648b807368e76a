"""Dipoles and polarizabilities of water from heads on a potential; prints their errors.

Linear heads on `pet-water-v4` are fitted to single water molecules and pairs (PBE0) and measured
on 40 others: printed are the errors over the size of a component (of the polarizability: of what
differs from molecule to molecule), for dipoles beside those of one charge on all hydrogen atoms,
and the dipole of one molecule. Needs e3nn: pip install "pet-calc[tensors]".

    python md_examples/13_water_dipoles.py            # fitted to 90 clusters
    python md_examples/13_water_dipoles.py --smoke    # to 30
"""

import argparse
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress as full
from ase.units import Debye

from pet_calc.calculators.tensors import fit_tensor_head, tensor_property
from pet_calc.io.models.tensor_heads import save_tensor_head
from pet_calc.pretrained import load

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="fewer clusters")
parser.add_argument("--out", type=Path, default=Path("water_heads"), help="output folder")
options = parser.parse_args()

clusters = read(Path(__file__).parents[1] / "benchmarks/data/water_clusters.extxyz.xz", ":")
dipoles = np.array([a.get_dipole_moment() for a in clusters])  # e Å
tensors = np.array([full(a.info["polarizability"]) for a in clusters])  # Å³
fitted = slice(30 if options.smoke else 90)
left_out = clusters[-40:]

model = load("pet-water-v4", dtype="float64").model
options.out.mkdir(parents=True, exist_ok=True)


def error(found, truth, reference=0.0):
    """Root mean square error over the size of a component."""
    return np.sqrt(np.mean((found - truth) ** 2) / np.mean((truth - reference) ** 2))


head = fit_tensor_head(
    model, clusters[fitted], dipoles[fitted], irreps="1o", quantity="dipole", unit="e Å"
)
save_tensor_head(options.out / "dipole.safetensors", head, model)
found = np.array([tensor_property(model, head, a).total for a in left_out])
# charges of hydrogen and oxygen that explain the same dipoles best
moments = np.array([np.where(a.numbers == 1, 1, -2) @ a.positions for a in clusters])
charge = np.sum(moments[fitted] * dipoles[fitted]) / np.sum(moments[fitted] ** 2)
print(f"dipole           error {100 * error(found, dipoles[-40:]):.1f} %")
print(f"charges instead  error {100 * error(charge * moments[-40:], dipoles[-40:]):.1f} %")
water = molecule("H2O")
print(f"one molecule     {np.linalg.norm(tensor_property(model, head, water).total) / Debye:.2f} D")

head = fit_tensor_head(
    model, clusters[fitted], tensors[fitted], irreps="0e + 2e", quantity="polarizability", unit="Å³"
)
save_tensor_head(options.out / "polarizability.safetensors", head, model)
found = np.array([tensor_property(model, head, a).total for a in left_out])
sizes = np.array([len(a) // 3 for a in clusters])[:, None, None]
mean = np.trace((tensors / sizes)[fitted].mean(axis=0)) / 3 * np.eye(3)
print(f"polarizability   error {100 * error(found, tensors[-40:], mean * sizes[-40:]):.0f} %")
