"""Crystals and small property models that several tests use."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from pet_calc.crystals.models import PropertyConfig, PropertyModel, Target

SMALL = {
    "cgcnn": {"width": 16, "layers": 2},
    "matformer": {"width": 16, "heads": 2, "layers": 2},
    "crysformer": {"width": 16, "heads": 2, "layers": 2},
    "crystalformer": {"width": 16, "heads": 2, "layers": 2, "cutoff": 4.0},
    "pet": {
        "width": 8,
        "heads": 2,
        "layers": 2,
        "cutoff": 3.6,
        "cutoff_width": 1.5,
        "angular_degree": 2,
    },
}
GAP = (Target("band_gap", "eV"), Target("is_metal", kind="class"))


def small_model(
    backbone: str, targets: tuple[Target, ...] = (Target("x"),), **options: object
) -> PropertyModel:
    """A model with seeded weights, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = PropertyConfig(
            (8, 11, 14, 17, 22, 38), targets, backbone, SMALL[backbone] | options
        )
        return PropertyModel(config).double().eval().requires_grad_(False)


def rutile() -> Atoms:
    """TiO2, whose lattice is primitive."""
    u = 0.305
    frac = [[0, 0, 0], [0.5] * 3, [u, u, 0], [-u, -u, 0], [0.5 + u, 0.5 - u, 0.5],
            [0.5 - u, 0.5 + u, 0.5]]  # fmt: skip
    return Atoms("Ti2O4", scaled_positions=frac, cell=[4.59, 4.59, 2.96], pbc=True)


def equivalents(atoms: Atoms) -> dict[str, Atoms]:
    """The same crystal, described otherwise."""
    rng = np.random.default_rng(5)
    moved, wrapped, turned = atoms.copy(), atoms.copy(), atoms.copy()
    moved.positions += [0.31, -1.7, 0.05]
    wrapped.positions += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    turned.rotate(33.0, (1, 2, 0.5), rotate_cell=True)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ atoms.cell.array)
    return {
        "translated": moved,
        "wrapped": wrapped,
        "rotated": turned,
        "permuted": atoms[rng.permutation(len(atoms))],
        "supercell": atoms.repeat((2, 1, 2)),
        "skewed": skewed,
    }


STRUCTURES = {
    "NaCl": bulk("NaCl", "rocksalt", 5.64),
    "Si": bulk("Si"),
    "TiO2": rutile(),
}
