"""The orientation that is chosen for a structure does not depend on how it is given."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from contracts.models import random_pet
from contracts.structures import STRUCTURES

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models.ecse.canonical import canonical_energies, canonical_views
from pet_calc.neighbors import neighbor_list

SHEAR = np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]])


def quartz() -> Atoms:
    """Chiral: no operation of the crystal turns it over."""
    return crystal(
        "SiO2",
        [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
    )


def disordered() -> Atoms:
    """Without any symmetry."""
    atoms = Atoms(bulk("Si", cubic=True))
    atoms.rattle(0.2, seed=1)
    atoms.numbers[2] = 8
    return atoms


CRYSTALS = {
    "Si": lambda: bulk("Si"),
    "hcp": lambda: bulk("O", "hcp", a=2.7, c=4.3),
    "bcc": lambda: bulk("Si", "bcc", a=2.8),
    "SiO": lambda: bulk("SiO", "rocksalt", a=4.6),
    "quartz": quartz,
    "disordered": disordered,
    # farther apart than the cutoff
    "atoms apart": lambda: bulk("Si", "sc", a=9.0),
}


def given_otherwise(atoms: Atoms, seed: int) -> dict[str, Atoms]:
    """The same crystal in other words."""
    rng = np.random.default_rng(seed)
    turned, mirrored = atoms.copy(), atoms.copy()
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    q *= np.linalg.det(q)
    turned.set_cell(atoms.cell @ q, scale_atoms=True)
    mirrored.set_cell(atoms.cell @ -q, scale_atoms=True)
    moved = turned.copy()
    moved.positions += rng.normal(size=3)
    moved.wrap()
    return {
        "turned": turned,
        "mirrored": mirrored,
        "moved and shuffled": moved[rng.permutation(len(moved))],
        "another cell": make_supercell(turned, SHEAR),
        "supercell": make_supercell(moved, np.diag([2, 1, 1])),
    }


def prepared(atoms: Atoms, cutoff: float) -> tuple[System, Edges]:
    system = system_from_atoms(atoms)
    return system, neighbor_list(system, cutoff)


@pytest.mark.parametrize("name", CRYSTALS)
def test_energies_per_atom_depend_on_the_crystal_alone(name):
    model, atoms = random_pet(), CRYSTALS[name]()
    with torch.no_grad():
        first = canonical_energies(model, *prepared(atoms, model.cutoff)).item() / len(atoms)
        for how, same in given_otherwise(atoms, 3).items():
            other = canonical_energies(model, *prepared(same, model.cutoff)).item() / len(same)
            assert other == pytest.approx(first, abs=1e-10), how


def test_the_network_alone_is_not_symmetric():
    """What the other tests rely on: turned or mirrored, it says something else."""
    model, atoms = random_pet(), quartz()

    def plain(a: Atoms) -> float:
        system, edges = prepared(a, model.cutoff)
        with torch.no_grad():
            return model.energies(system, edges, edge_vectors(system, edges)).sum().item()

    others = given_otherwise(atoms, 3)
    assert abs(plain(others["turned"]) - plain(atoms)) > 1e-3
    assert abs(plain(others["mirrored"]) - plain(others["turned"])) > 1e-3


def test_structures_of_a_batch_do_not_see_each_other():
    model = random_pet()
    crystals = [make() for make in CRYSTALS.values()]
    parts = [prepared(a, model.cutoff) for a in crystals]
    system = System.concatenate([s for s, _ in parts])
    edges = Edges.concatenate([e for _, e in parts], [len(a) for a in crystals])
    with torch.no_grad():
        together = canonical_energies(model, system, edges)
        alone = torch.cat([canonical_energies(model, s, e) for s, e in parts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STRUCTURES)
def test_one_view_for_each_structure_of_any_kind(name):
    system = STRUCTURES[name]()
    edges = neighbor_list(system, 4.0)
    views = canonical_views(system, edges, edge_vectors(system, edges).double(), 4.0)
    assert views.group.tolist() == list(range(system.n_systems))
