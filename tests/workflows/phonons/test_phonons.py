"""Phonons against dynamics computed without phonopy, against sums by hand, and against DFT."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from calculators.small_potentials import small_pet
from scipy import constants
from scipy.spatial.transform import Rotation

from pet_calc import PETCalculator
from pet_calc.errors import InvalidStructureError, SimulationError
from pet_calc.workflows.phonons import (
    PHONON_FILES,
    BornCharges,
    PhononConfig,
    phonon_figure,
    phonons,
    reference_spectrum,
    write_phonons,
)
from pet_calc.workflows.phonons.cells import find_primitive, shortest_translation, supercell_matrix
from pet_calc.workflows.phonons.forces import forces_of

pytest.importorskip("phonopy")

QUICK = {"min_length": 7.5, "mesh": 20.0, "q_spacing": 0.2, "t_step": 100.0}
# sqrt(eV/Å²/amu) as a frequency in THz
ROOT_TO_THZ = np.sqrt(constants.e / constants.atomic_mass) * 1e10 / (2 * np.pi) / 1e12


def with_emt(atoms):
    atoms.calc = EMT()
    return atoms


def cu3au():
    return crystal(
        ["Au", "Cu"], [(0, 0, 0), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.75] * 3 + [90] * 3
    )


def hessian_frequencies(atoms, repeat, distance=1e-3):
    """All frequencies of a supercell in THz from central differences of all of its forces."""
    big = with_emt(atoms.repeat(repeat))
    n = len(big)
    hessian = np.zeros((3 * n, 3 * n))
    for i in range(n):
        for a in range(3):
            sides = []
            for sign in (1, -1):
                moved = with_emt(big.copy())
                moved.positions[i, a] += sign * distance
                sides.append(moved.get_forces().ravel())
            hessian[3 * i + a] = -(sides[0] - sides[1]) / (2 * distance)
    hessian = (hessian + hessian.T) / 2
    mass = np.repeat(big.get_masses(), 3)
    squares = np.linalg.eigvalsh(hessian / np.sqrt(np.outer(mass, mass)))
    return np.sort(np.sign(squares) * np.sqrt(np.abs(squares))) * ROOT_TO_THZ


def commensurate_frequencies(result, repeat):
    """Frequencies at all q-points whose waves fit into a supercell, from the force constants."""
    grid = np.array(list(np.ndindex(*repeat))) / np.array(repeat)
    return np.sort(result.phonon.run_qpoints(grid).frequencies.ravel())


@pytest.mark.parametrize(
    ("make", "repeat", "displacements"),
    [
        (lambda: bulk("Cu"), (3, 3, 3), "reduced"),
        (lambda: bulk("Al"), (3, 3, 3), "full"),
        (cu3au, (2, 2, 2), "reduced"),
    ],
)
def test_frequencies_are_those_of_the_supercell(make, repeat, displacements):
    config = PhononConfig(
        **QUICK, supercell=repeat, displacements=displacements, distance=1e-3, fmax=1e-5
    )
    result = phonons(with_emt(make()), config)
    cell = result.primitive.atoms
    expected = hessian_frequencies(cell, repeat)
    found = commensurate_frequencies(result, repeat)
    acoustic = np.sort(np.abs(found))[:3]
    assert acoustic.max() < 1e-5
    large = np.abs(expected) > 0.1
    assert large.sum() == len(expected) - 3
    np.testing.assert_allclose(found[large], expected[large], atol=3e-4)
    # the tolerance sees masses that are wrong by one in a thousand
    assert np.abs(found[large] * 1.0005 - expected[large]).max() > 3e-4
    assert result.spectrum.stable
    assert result.report.asymmetry < 1e-3


def test_thermal_properties_are_sums_over_oscillators():
    result = phonons(with_emt(cu3au()), PhononConfig(**QUICK))
    found = result.spectrum.thermal
    mesh = result.phonon.mesh.mesh_numbers
    grid = np.array(list(np.ndindex(*mesh))) / mesh
    frequencies = result.phonon.run_qpoints(grid).frequencies.ravel()
    frequencies = np.delete(frequencies, np.argsort(np.abs(frequencies))[:3])
    assert frequencies.min() > 0
    n = 4 * len(grid)
    energy = constants.h * 1e12 * frequencies / constants.e  # eV
    kb = constants.k / constants.e
    assert found.zero_point_energy == pytest.approx(energy.sum() / 2 / n, rel=1e-6)
    for k, t in enumerate(found.temperature):
        if t == 0:  # phonopy's constants differ from CODATA's in the sixth digit
            continue
        x = energy / (kb * t)
        free = (energy / 2 + kb * t * np.log1p(-np.exp(-x))).sum() / n
        entropy = (x / np.expm1(x) - np.log1p(-np.exp(-x))).sum() / n
        heat = (x**2 * np.exp(x) / np.expm1(x) ** 2).sum() / n
        assert found.free_energy[k] == pytest.approx(free, rel=1e-5, abs=1e-6)
        assert found.entropy[k] == pytest.approx(constants.R * entropy, rel=1e-5)
        assert found.heat_capacity[k] == pytest.approx(constants.R * heat, rel=1e-5)
    assert found.heat_capacity[-1] == pytest.approx(3 * constants.R, rel=0.02)
    dos = result.spectrum.dos
    assert np.trapezoid(dos.total, dos.frequency) == pytest.approx(12.0, rel=0.05)
    np.testing.assert_allclose(sum(dos.projected.values()), dos.total, atol=0.05 * dos.total.max())


def test_the_given_cell_and_its_orientation_do_not_matter():
    config = PhononConfig(**QUICK)
    expected = phonons(with_emt(bulk("Cu", "hcp", a=2.56, c=4.18)), config).spectrum
    turned = bulk("Cu", "hcp", a=2.56, c=4.18) * (2, 1, 1)
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    turned.set_cell(turned.cell.array @ rotation.T, scale_atoms=True)
    found = phonons(with_emt(turned), config).spectrum
    assert [p.label for p in found.points] == [p.label for p in expected.points]
    for a, b in zip(found.points, expected.points, strict=True):
        np.testing.assert_allclose(a.frequencies, b.frequencies, atol=2e-3)
        assert sorted(map(len, a.groups)) == sorted(map(len, b.groups))
    assert sorted(found.points[0].irreps) == ["A2u", "B1g", "E1u", "E2g"]


def test_supercells():
    fcc = find_primitive(bulk("Cu", cubic=True), 1e-3)
    assert (len(fcc.atoms), fcc.number) == (1, 225)
    np.testing.assert_allclose(fcc.given @ fcc.atoms.cell.array, bulk("Cu", cubic=True).cell.array)
    for length in (5.0, 9.0, 13.0):
        matrix = supercell_matrix(fcc, None, length)
        assert shortest_translation(matrix @ fcc.atoms.cell.array) >= length
    # of the conventional cell that was given
    matrix = supercell_matrix(fcc, (2, 2, 2), 0.0)
    np.testing.assert_allclose(matrix @ fcc.atoms.cell.array, np.eye(3) * 2 * 3.61, atol=1e-9)
    with pytest.raises(ValueError, match="too small"):
        supercell_matrix(fcc, (1, 1, 1), 0.0)
    with pytest.raises(ValueError, match="positive determinant"):
        supercell_matrix(fcc, (2, 0, 2), 0.0)


def test_supercell_without_the_symmetry_of_the_crystal_is_refused():
    config = PhononConfig(**{**QUICK, "supercell": (2, 2, 3)})
    with pytest.raises(ValueError, match="symmetry of the crystal"):
        phonons(with_emt(bulk("Cu", cubic=True)), config)


def test_low_symmetry():
    """Three elements, an oblique cell: a path with edge cases, a mesh of the conventional cell."""
    cell = [[3.9, 0.1, 0.2], [0.3, 4.1, 0.4], [0.5, -0.2, 3.7]]
    atoms = Atoms(
        "CuAuAg", cell=cell, scaled_positions=[[0, 0, 0], [0.5, 0.52, 0.05], [0.47, 0.03, 0.5]]
    )
    atoms.pbc = True
    config = PhononConfig(**{**QUICK, "min_length": 6.0}, symprec=1e-5, relax=False)
    result = phonons(with_emt(atoms), config)
    assert result.primitive.number == 1
    assert np.sort(np.abs(result.spectrum.points[0].frequencies))[:3].max() < 1e-5


def test_symmetry_that_appears_in_the_relaxation_is_used():
    atoms = with_emt(bulk("Cu", cubic=True))
    atoms.positions[0, 0] += 0.05
    result = phonons(atoms, PhononConfig(**QUICK, fmax=1e-6))
    assert find_primitive(atoms, 1e-3).number != 225
    assert len(result.primitive.atoms) == 1
    given = result.primitive.given @ result.primitive.atoms.cell.array
    np.testing.assert_allclose(given, np.eye(3) * given[0, 0], atol=0.02)


def test_polar_crystal_splits_as_electrostatics_says():
    """ω_LO² - ω_TO² = Z*² e² / (ε₀ ε V μ) for two ions in a cubic cell."""
    atoms = with_emt(bulk("CuAl", "cesiumchloride", a=3.0))
    z, epsilon = 1.3, 2.5
    born = BornCharges(np.array([z * np.eye(3), -z * np.eye(3)]), epsilon * np.eye(3))
    result = phonons(atoms, PhononConfig(**QUICK), born=born)
    coulomb = constants.e / (4 * np.pi * constants.epsilon_0) * 1e10  # eV Å
    reduced_mass = 1 / (1 / atoms.get_masses()).sum()
    volume = result.primitive.atoms.get_volume()
    expected = 4 * np.pi * z**2 * coulomb / (epsilon * volume * reduced_mass) * ROOT_TO_THZ**2
    assert result.spectrum.splittings
    bare = result.spectrum.points[0].frequencies
    for splitting in result.spectrum.splittings:
        squares = np.sort(np.sign(splitting.frequencies) * splitting.frequencies**2)
        without = np.sort(np.sign(bare) * bare**2)
        assert squares[-1] - without[-1] == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(squares[:-1], without[:-1], atol=1e-3)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\)"):
        phonons(atoms, PhononConfig(**QUICK), born=BornCharges(np.zeros((1, 3, 3)), np.eye(3)))


def test_unstable_structure_is_reported():
    result = phonons(with_emt(bulk("Cu", "sc", a=2.4)), PhononConfig(**QUICK))
    assert not result.spectrum.stable
    assert result.spectrum.lowest < -1.0
    assert result.spectrum.thermal.left_out > 0.01
    assert "imaginary modes" in result.warnings[0]
    phonon_figure(result.spectrum, reference=result.spectrum)


def test_batches_give_the_forces_of_single_structures():
    model = small_pet((13,))
    calculator = PETCalculator(model, dtype="float64")
    generator = np.random.default_rng(0)
    structures = []
    for _ in range(5):
        structures.append(bulk("Al", cubic=True))
        structures[-1].positions += generator.normal(scale=0.1, size=(4, 3))
    seen = []
    edges = [len(neighbor_list("i", atoms, model.cutoff)) for atoms in structures]
    energies, forces = forces_of(
        calculator,
        structures,
        batch_edges=2 * max(edges),
        on_progress=lambda p: seen.append((p.done, p.total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    for k, atoms in enumerate(structures):
        atoms.calc = calculator
        np.testing.assert_allclose(forces[k], atoms.get_forces(), atol=1e-10)
        assert energies[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def hexagonal_aluminum(calculator):
    atoms = bulk("Al", "hcp", a=2.86, c=4.67)
    atoms.calc = calculator
    return atoms


def test_broken_symmetry_is_measured_and_removed():
    """A random PET has no rotational symmetry: its force constants show it, and are projected."""
    config = {**QUICK, "relax": False, "displacements": "full"}
    potential = PETCalculator(small_pet((13,), seed=1), dtype="float64")

    def splitting(result):
        return max(
            np.ptp(point.frequencies[list(group)])
            for point in result.spectrum.points
            for group in point.groups
        )

    result = phonons(hexagonal_aluminum(potential), PhononConfig(**config))
    assert result.report.n_supercells == 12
    assert result.report.asymmetry > 1e-3 * result.report.largest
    assert splitting(result) < 1e-5
    assert np.sort(np.abs(result.spectrum.points[0].frequencies))[:3].max() < 1e-4
    symmetric = phonons(hexagonal_aluminum(EMT()), PhononConfig(**config))
    assert symmetric.report.asymmetry < 2e-4 * symmetric.report.largest
    # translations and permutations alone leave degenerate modes split
    partly = PhononConfig(**config, symmetrize="phonopy")
    assert splitting(phonons(hexagonal_aluminum(potential), partly)) > 5e-3


class Biased(EMT):
    """Forces of EMT, and on every atom a force that does not change with the positions."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"] + bias(len(self.atoms))


def bias(n_atoms):
    return np.random.default_rng(n_atoms).normal(scale=0.02, size=(n_atoms, 3))  # eV/Å


@pytest.mark.parametrize("subtract", [True, False])
def test_forces_of_the_undisplaced_supercell_are_subtracted_unless_kept(subtract):
    config = PhononConfig(**QUICK, relax=False, subtract_residual=subtract)
    exact = phonons(with_emt(bulk("Cu", a=3.6)), config).phonon
    biased = bulk("Cu", a=3.6)
    biased.calc = Biased()
    found = phonons(biased, config)
    n = found.report.n_atoms
    assert found.report.residual_force == pytest.approx(np.abs(bias(n)).max())
    left = found.phonon.forces - exact.forces
    np.testing.assert_allclose(left, np.zeros_like(left) if subtract else [bias(n)], atol=1e-12)
    change = np.abs(found.phonon.force_constants - exact.force_constants).max()
    assert change < 1e-9 if subtract else change > 0.1  # eV/Å²


def test_files(tmp_path):
    import phonopy

    result = phonons(with_emt(cu3au()), PhononConfig(**QUICK))
    write_phonons(result, tmp_path, title="Cu3Au", origin={"command": "test"})
    assert {p.name for p in tmp_path.iterdir()} == set(PHONON_FILES)
    loaded = phonopy.load(tmp_path / "phonopy.yaml")
    q = [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0]]
    np.testing.assert_allclose(
        loaded.run_qpoints(q).frequencies, result.phonon.run_qpoints(q).frequencies, atol=1e-6
    )
    summary = json.loads((tmp_path / "phonons.json").read_text(encoding="utf-8"))
    assert summary["spacegroup"] == "Pm-3m"
    assert summary["provenance"] == {"command": "test"}
    bands = np.genfromtxt(tmp_path / "bands.csv", delimiter=",", skip_header=1)
    assert bands.shape[1] == 6 + 12
    assert "T1u" in (tmp_path / "points.csv").read_text(encoding="utf-8")
    thermal = np.genfromtxt(tmp_path / "thermal.csv", delimiter=",", names=True)
    assert thermal["temperature_K"][-1] == 1000


def broken(change):
    atoms = with_emt(bulk("Cu", cubic=True))
    change(atoms)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "error", "message"),
    [
        (with_emt(Atoms("Cu2", [(0, 0, 0), (0, 0, 2.2)])), InvalidStructureError, "pbc="),
        (with_emt(Atoms()), InvalidStructureError, "empty"),
        (
            broken(lambda a: a.positions.__setitem__((0, 0), np.nan)),
            InvalidStructureError,
            "finite",
        ),
        (broken(lambda a: a.set_cell(-a.cell.array)), InvalidStructureError, "right-handed"),
        (
            broken(lambda a: a.set_masses([63, 65, 63, 63])),
            InvalidStructureError,
            "one mass",
        ),
        (broken(lambda a: a.info.update(charge=1)), InvalidStructureError, "supercells"),
        (with_emt(bulk("Fe")), SimulationError, "EMT cannot compute"),
        (bulk("Cu"), ValueError, "calculator"),
    ],
)
def test_bad_structures(atoms, error, message):
    with pytest.raises(error, match=message):
        phonons(atoms, PhononConfig(**QUICK))


def test_relaxation_that_does_not_converge_is_an_error():
    atoms = with_emt(bulk("Cu", a=3.9))
    with pytest.raises(SimulationError, match="after 1 steps"):
        phonons(atoms, PhononConfig(**QUICK, steps=1))


@pytest.mark.parametrize(
    "options",
    [
        {"distance": 0.0},
        {"distance": 1.0},
        {"supercell": (2, 2)},
        {"displacements": "some"},
        {"symmetrize": "none"},
        {"mesh": np.nan},
        {"batch_edges": 0},
    ],
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PhononConfig(**options)


def test_dft_forces_of_silicon_give_the_reference_frequencies(data_dir):
    """PBE force sets, 64 atoms, beside frequencies that another treatment of them gave."""
    folder = data_dir / "phonons"
    if not folder.is_dir():
        pytest.skip("no phonon data there")
    references = json.loads((folder / "reference_THz.json").read_text(encoding="utf-8"))
    reference = next(v for k, v in references.items() if k.startswith("Si-PBE "))
    found = reference_spectrum(
        folder / "Si" / "POSCAR-unitcell",
        folder / "Si" / "FORCE_SETS",
        (2, 2, 2),
        PhononConfig(**{**QUICK, "symprec": 1e-5}),
    )
    points = {p.label: p for p in found.points}
    for name, label in (("G", "Γ"), ("X", "X"), ("L", "L")):
        np.testing.assert_allclose(points[label].frequencies, reference[name], atol=0.02)
    assert points["Γ"].irreps == ("T1u", "T2g")
    with pytest.raises(ValueError, match="64 atoms"):
        reference_spectrum(
            folder / "Si" / "POSCAR-unitcell", folder / "Si" / "FORCE_SETS", (1, 1, 1)
        )


def test_states_are_not_lost_in_a_skewed_cell():
    """phonopy's tetrahedra find none in this cell, of the same crystal."""
    copper = bulk("Cu", cubic=True)
    skewed = copper.copy()
    skewed.cell[1] += 7 * copper.cell[0]
    results = []
    for atoms in (copper, skewed):
        atoms.numbers[0] = 79  # an ordered alloy: the primitive cell is the one given
        atoms.calc = EMT()
        config = PhononConfig(relax=False, supercell=(2, 2, 2), mesh=40.0, t_step=100.0)
        results.append(phonons(atoms, config))
    sharp, smeared = results
    assert sharp.spectrum.dos.smearing is None
    for result in results:
        assert result.spectrum.dos.n_modes == pytest.approx(12, rel=0.1)
    assert smeared.spectrum.lowest == pytest.approx(sharp.spectrum.lowest, abs=1e-3)
    if smeared.spectrum.dos.smearing is not None:
        assert any("skewed" in text for text in smeared.warnings)
