"""Volume, Voigt order and the sign of stress, against ASE."""

import numpy as np
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from contracts.energy_model import strained
from contracts.models import lennard_jones
from contracts.structures import left_handed_cell, system

from pet_calc.geometry import voigt_from_matrix, volume
from pet_calc.geometry.cell import matrix_from_voigt, stress_from_virial
from pet_calc.models import LennardJones, evaluate
from pet_calc.neighbors import neighbor_list


def test_volume_is_positive_for_left_handed_cells() -> None:
    cell = left_handed_cell().cell
    assert torch.linalg.det(cell).item() < 0
    assert torch.allclose(volume(cell), -torch.linalg.det(cell))
    assert volume(torch.zeros(2, 3, 3)).tolist() == [0, 0]


def test_voigt_order_is_that_of_ase() -> None:
    matrix = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    symmetric = 0.5 * (matrix + matrix.mT)
    voigt = voigt_from_matrix(matrix)
    assert np.allclose(voigt, full_3x3_to_voigt_6_stress(symmetric.numpy()), rtol=0, atol=1e-15)
    assert torch.equal(voigt, voigt_from_matrix(symmetric))
    assert torch.equal(matrix_from_voigt(voigt), symmetric)
    assert np.array_equal(matrix_from_voigt(voigt)[0], voigt_6_to_full_3x3_stress(voigt[0].numpy()))


def test_stress_without_volume_is_not_a_number() -> None:
    stress = stress_from_virial(torch.ones(2, 3, 3), torch.stack([torch.zeros(3, 3), torch.eye(3)]))
    assert torch.isnan(stress[0]).all()
    assert torch.equal(stress[1], torch.ones(6))


def test_compressed_crystal_has_negative_trace() -> None:
    atoms = bulk("Ar", "fcc", a=2 ** (1 / 6) * 2.5 * 2**0.5)
    crystal = system(atoms.positions, [18], np.array(atoms.cell))
    model = LennardJones((18,))
    traces = []
    for strain in (-0.06, 0.06):
        deformed = strained(crystal, strain * torch.eye(3, dtype=torch.float64))
        stress = evaluate(model, deformed, neighbor_list(deformed, model.cutoff)).stress
        assert stress is not None
        traces.append(stress[0, :3].sum().item())
    assert traces[0] < 0 < traces[1]


def test_lennard_jones_agrees_with_ase() -> None:
    """Well inside the cutoff the bump is 1: unswitched Lennard-Jones of ASE, stress included."""
    rng = np.random.default_rng(1)
    atoms = bulk("Ar", "fcc", a=4.2, cubic=True)
    atoms.rattle(0.1, rng=rng)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.standard_normal((3, 3))), scale_atoms=True)
    r = atoms.get_all_distances(mic=True)
    # ASE's sharp cutoff and our whole switch lie in one gap between the shells
    distances = np.sort(r[r > 0])
    gaps = np.diff(distances)
    k = int(np.argmax(gaps * (distances[:-1] < 3.6)))
    cutoff = distances[k] + 0.5 * gaps[k]
    atoms.calc = AseLennardJones(sigma=2.5, epsilon=0.01, rc=cutoff, smooth=False)
    ours = system(atoms.positions, atoms.numbers, np.array(atoms.cell))
    model = LennardJones((18,), cutoff=distances[k + 1] - 1e-6, cutoff_width=0.9 * gaps[k] / 2)
    result = evaluate(model, ours, neighbor_list(ours, model.cutoff))
    assert result.forces is not None
    assert result.stress is not None
    n_pairs = neighbor_list(ours, cutoff).n_edges / 2
    x6 = (2.5 / cutoff) ** 6
    shift = 4 * 0.01 * (x6 * x6 - x6) * n_pairs  # ASE shifts each pair to zero at its cutoff
    assert abs(result.energy.item() - shift - atoms.get_potential_energy()) < 1e-12
    assert np.abs(result.forces.numpy() - atoms.get_forces()).max() < 1e-12
    assert np.abs(result.stress[0].numpy() - atoms.get_stress()).max() < 1e-13
    assert lennard_jones().atomic_numbers == (1, 8, 14)
