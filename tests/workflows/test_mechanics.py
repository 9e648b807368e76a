"""Equation of state, elastic constants and barriers against numbers computed in another way."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixedLine
from ase.units import GPa
from calculators.small_potentials import small_pet

from pet_calc import PETCalculator
from pet_calc.calculators.base import ModelCalculator
from pet_calc.errors import InvalidStructureError, MissingDependencyError, SimulationError
from pet_calc.models.lennard_jones import LennardJones
from pet_calc.workflows.mechanics.config import ElasticConfig, EosConfig, NebConfig
from pet_calc.workflows.mechanics.elastic import (
    elastic_constants,
    elastic_summary,
    kelvin_moduli,
    moduli,
    symmetrized,
)
from pet_calc.workflows.mechanics.eos import (
    eos_summary,
    equation_of_state,
    fit_birch_murnaghan,
)
from pet_calc.workflows.mechanics.figures import eos_figure, neb_figure
from pet_calc.workflows.mechanics.neb import minimum_energy_path, neb_summary
from pet_calc.workflows.relax import RelaxConfig, relax, why_not_batched


class Argon(ModelCalculator):
    """Lennard-Jones argon as a model of ours, so that its copies are computed together."""

    name = "argon"

    def __init__(self):
        super().__init__(LennardJones((18,), epsilon=0.0104, sigma=3.4, cutoff=7.0))


def copper(turned=False):
    atoms = bulk("Cu")
    if turned:
        atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.calc = EMT()
    return atoms


@pytest.fixture(scope="module")
def copper_tensor():
    atoms = copper(turned=True)
    before = atoms.cell.array.copy()
    result = elastic_constants(atoms, ElasticConfig(strain=0.004))
    assert (atoms.cell.array == before).all()
    return result


def strained_energy(atoms, strain):
    copy = atoms.copy()
    copy.calc = atoms.calc
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return copy.get_potential_energy()


def energy_constants(atoms, h=2e-3):
    """C11 − C12, C44 and B in GPa as second derivatives of the energy, at zero stress."""
    patterns = {
        # volume-conserving to second order: V ε² (C11 − C12), 2 V ε² C44, (9/2) V ε² B
        "shear": (np.diag([1.0, -1.0, 0.0]), 1.0),
        "C44": (np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]]), 2.0),
        "B": (np.eye(3), 4.5),
    }
    e = {
        name: [strained_energy(atoms, x * pattern) for x in (-h, 0.0, h)]
        for name, (pattern, _) in patterns.items()
    }
    v = atoms.get_volume()
    return {
        name: (e[name][0] - 2 * e[name][1] + e[name][2]) / (2 * factor * v * h**2) / GPa
        for name, (_, factor) in patterns.items()
    }


def test_constants_are_second_derivatives_of_the_energy():
    atoms = bulk("Ni")
    atoms.calc = EMT()
    relaxed = relax(atoms, RelaxConfig("bfgs", cell="free", fmax=1e-6)).atoms
    relaxed.calc = EMT()
    expected = energy_constants(relaxed)
    result = elastic_constants(relaxed, ElasticConfig(strain=0.002, relax=False))
    c = result.C
    assert c[0, 0] - c[0, 1] == pytest.approx(expected["shear"], rel=3e-3)
    assert c[3, 3] == pytest.approx(expected["C44"], rel=3e-3)
    assert (c[0, 0] + 2 * c[0, 1]) / 3 == pytest.approx(expected["B"], rel=3e-3)
    assert np.abs(result.stress).max() < 1e-3


def test_bulk_modulus_of_both_workflows(copper_tensor):
    fit = equation_of_state(copper(), EosConfig(span=(0.97, 1.03))).fit
    assert copper_tensor.moduli["K_Hill"] == pytest.approx(fit.B0, rel=2e-3)
    assert abs(fit.B0 - 134.5) < 0.2


def test_tensor_turns_with_the_crystal(copper_tensor):
    upright = elastic_constants(copper(), ElasticConfig(strain=0.004))
    assert upright.space_group == copper_tensor.space_group == "Fm-3m (225)"
    assert np.abs(upright.C - copper_tensor.C).max() > 10
    # (in C_raw, shear of the turned crystal mixes with the nonlinearity of normal strains)
    np.testing.assert_allclose(upright.eigenvalues, copper_tensor.eigenvalues, rtol=2e-3)
    for name, value in upright.moduli.items():
        assert value == pytest.approx(copper_tensor.moduli[name], rel=5e-3), name
    assert upright.C[0, 1] == pytest.approx(upright.C[1, 2], rel=1e-12)
    assert upright.C[0, 3] == pytest.approx(0.0, abs=1e-9)
    assert copper_tensor.asymmetry < 0.1
    assert copper_tensor.stable
    json.dumps(elastic_summary(copper_tensor))


def test_errors_cover_the_nonlinearity():
    exact = elastic_constants(copper(), ElasticConfig(strain=0.001))
    rough = elastic_constants(copper(), ElasticConfig(strain=0.02))
    deviation = abs(rough.C[0, 0] - exact.C[0, 0])
    assert 0 < deviation < 3 * rough.C_error[0, 0]
    assert rough.C_error[0, 0] > 10 * exact.C_error[0, 0]
    assert exact.moduli_error["K_Hill"] < 0.1 < rough.moduli_error["K_Hill"]


def test_moduli_of_a_published_tensor():
    # copper, 300 K: C11 168.4, C12 121.4, C44 75.4 GPa (Overton and Gaffney, 1955); for a cubic
    # crystal K = (C11 + 2 C12)/3, G_V = (C11 − C12 + 3 C44)/5, G_R = 5/(4/(C11 − C12)·... )
    c11, c12, c44 = 168.4, 121.4, 75.4
    c = np.diag([c11] * 3 + [c44] * 3)
    c[:3, :3] += c12 * (1 - np.eye(3))
    found = moduli(c)
    assert found["K_Voigt"] == found["K_Reuss"] == pytest.approx((c11 + 2 * c12) / 3)
    assert found["G_Voigt"] == pytest.approx((c11 - c12 + 3 * c44) / 5)
    reuss = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
    assert found["G_Reuss"] == pytest.approx(reuss)
    np.testing.assert_allclose(kelvin_moduli(c), [c11 - c12] * 2 + [2 * c44] * 3 + [c11 + 2 * c12])
    c[3, 3] = -1.0
    assert kelvin_moduli(c)[0] < 0


def test_group_average_is_a_projection():
    c = np.random.default_rng(0).normal(size=(6, 6))
    c = c + c.T
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    fourfold = np.array([np.linalg.matrix_power(turn, n) for n in range(4)])
    once = symmetrized(c, fourfold)
    np.testing.assert_allclose(symmetrized(once, fourfold), once, atol=1e-12)
    assert once[0, 0] == pytest.approx(once[1, 1])
    assert once[0, 5] == pytest.approx(-once[1, 5])
    assert abs(once - c).max() > 0.1


def test_ions_that_follow_the_strain_soften_the_crystal():
    # diamond has no equilibrium in EMT: a stack of two kinds of hexagonal layers has ions to move
    atoms = bulk("Cu", "hcp", a=2.55, c=4.17)
    atoms.symbols[1] = "Au"
    atoms.calc = EMT()
    config = ElasticConfig(strain=0.004, points=3, fmax=1e-3)
    relaxed = elastic_constants(atoms, config)
    clamped = elastic_constants(relaxed.crystal, replace(config, relax_ions=False))
    assert relaxed.stable
    assert relaxed.C[0, 0] < clamped.C[0, 0] - 1.0
    assert kelvin_moduli(clamped.C - relaxed.C).min() > -0.5


def test_copies_computed_together_give_the_same():
    atoms = bulk("Ar", a=5.2)
    atoms.calc = Argon()
    assert why_not_batched([atoms, atoms], RelaxConfig()) is None
    result = elastic_constants(atoms, ElasticConfig(strain=0.004))
    assert result.stable
    # central forces at zero pressure obey Cauchy's relation
    assert result.C[0, 1] == pytest.approx(result.C[3, 3], rel=2e-3)
    fit = equation_of_state(atoms, EosConfig(span=(0.97, 1.03))).fit
    assert result.moduli["K_Hill"] == pytest.approx(fit.B0, rel=2e-3)


def test_pet_constants_are_derivatives_of_its_stress():
    atoms = Atoms("OH2O", pbc=True, cell=[3.4, 3.6, 3.9])
    atoms.set_scaled_positions([[0, 0, 0], [0.5, 0.5, 0.2], [0.5, 0.45, 0.8], [0.5, 0, 0.5]])
    atoms.calc = PETCalculator(small_pet())
    config = ElasticConfig(strain=1e-4, relax=False, relax_ions=False, symmetrize=False, points=3)
    result = elastic_constants(atoms, config)
    h, stresses = 1e-4, []
    for sign in (1, -1):
        copy = atoms.copy()
        copy.calc = atoms.calc
        copy.set_cell(atoms.cell.array @ np.diag([1, 1 + sign * h, 1]), scale_atoms=True)
        stresses.append(copy.get_stress() / GPa)
    column = (stresses[0] - stresses[1]) / (2 * h)
    assert np.abs(column).max() > 1
    # under stress C_ij is not symmetric, and the fit keeps the mean of both halves
    rows = [(stresses[0] - stresses[1])[1] / (2 * h)]
    assert result.C_raw[1, 1] == pytest.approx(rows[0], rel=1e-4)


def test_fit_of_exact_energies():
    v0, b0, bp = 40.0, 100.0 * GPa, 4.5
    v = np.linspace(0.94, 1.06, 9) * v0
    eta = (v0 / v) ** (2 / 3)
    e = -5000.0 + 9 * v0 * b0 / 16 * ((eta - 1) ** 3 * bp + (eta - 1) ** 2 * (6 - 4 * eta))
    fit = fit_birch_murnaghan(v, e)
    assert (fit.V0, fit.B0, fit.B0_prime) == pytest.approx((40.0, 100.0, 4.5), rel=1e-6)
    assert fit.pressure(v0) == pytest.approx(0.0, abs=1e-6)
    h = 1e-4
    slope = -(fit.energy(38.0 + h) - fit.energy(38.0 - h)) / (2 * h) / GPa
    assert fit.pressure(38.0) == pytest.approx(slope, rel=1e-6)
    noisy = fit_birch_murnaghan(v, e + 1e-3 * np.random.default_rng(0).normal(size=9))
    assert noisy.B0_error > 1e3 * fit.B0_error
    assert abs(noisy.B0 - 100.0) < 3 * noisy.B0_error
    with pytest.raises(SimulationError, match="no minimum"):
        fit_birch_murnaghan(v[4:], e[4:])
    with pytest.raises(SimulationError, match="no minimum"):
        fit_birch_murnaghan(v, -e)


def test_eos_that_misses_the_minimum():
    atoms = bulk("Cu", a=4.2)
    atoms.calc = EMT()
    with pytest.raises(SimulationError, match=r"no minimum|no equation"):
        equation_of_state(atoms, EosConfig(relax=False, span=(0.98, 1.02), relax_ions=False))
    result = equation_of_state(atoms, EosConfig(span=(0.98, 1.02), points=6))
    assert len(result.frames) == 6
    assert json.loads(json.dumps(eos_summary(result)))["n_atoms"] == 1
    assert len(eos_figure(result).axes) == 2


def test_shape_relaxes_at_constant_volume():
    atoms = bulk("Cu", "hcp", a=2.58, c=4.02)
    atoms.calc = EMT()
    config = EosConfig(points=5, span=(0.95, 1.05), relax=False, fmax=5e-3)
    ratios = {}
    for cell in ("fixed", "shape"):
        result = equation_of_state(atoms, replace(config, cell=cell))
        lengths = np.array([f.cell.lengths() for f in result.frames])
        ratios[cell] = lengths[:, 2] / lengths[:, 0]
        expected = np.linspace(0.95, 1.05, 5) * atoms.get_volume()
        np.testing.assert_allclose(result.volumes, expected, rtol=1e-9)
    np.testing.assert_allclose(ratios["fixed"], 4.02 / 2.58, rtol=1e-9)
    assert (np.abs(ratios["shape"] - 1.633) < 0.02).all()


@pytest.mark.parametrize("workflow", [equation_of_state, elastic_constants])
def test_what_is_no_crystal(workflow):
    molecule = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]], calculator=EMT())
    with pytest.raises(InvalidStructureError, match="three dimensions"):
        workflow(molecule)
    held = copper()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InvalidStructureError, match="constraints"):
        workflow(held)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matscipy", None)
    with pytest.raises(MissingDependencyError, match=r"pet-calc\[matscipy\]"):
        elastic_constants(copper())


def adatom(site):
    slab = fcc100("Al", (2, 2, 1), vacuum=4)
    slab.set_constraint(FixAtoms(range(4)))
    add_adsorbate(slab, "Al", 1.9, "hollow")
    shift = {"hollow": 0.0, "bridge": 0.25, "next": 0.5}[site]
    slab.positions[-1, 0] += shift * slab.cell[0, 0]
    slab.calc = EMT()
    return slab


def test_barrier_is_the_energy_of_the_bridge():
    # by symmetry the saddle point is the bridge site, relaxed along the normal
    hollow, bridge = adatom("hollow"), adatom("bridge")
    bridge.set_constraint([FixAtoms(range(4)), FixedLine([4], [0, 0, 1])])
    energies = [relax(atoms, RelaxConfig(fmax=1e-3)).energy for atoms in (hollow, bridge)]
    seen = []
    path = minimum_energy_path(
        adatom("hollow"), adatom("next"), NebConfig(images=3), on_progress=seen.append
    )
    assert path.converged
    assert path.barrier == pytest.approx(energies[1] - energies[0], abs=2e-3)
    assert path.barrier > 0.1
    assert path.reverse_barrier == pytest.approx(path.barrier, abs=1e-6)
    assert path.saddle == 2
    assert [p.stage for p in seen[:: len(seen) - 1]] == ["end points", "band"]
    assert seen[-1].done == path.steps
    assert seen[-1].values["barrier_eV"] == pytest.approx(path.barrier)
    # the curve through the images does not swing: it rises to the saddle point and falls
    top = path.fit_energies.argmax()
    for side in (path.fit_energies[: top + 1], path.fit_energies[top:][::-1]):
        assert np.diff(side).min() > -2e-3
    assert np.diff(path.path).min() > 0.1
    assert json.dumps(neb_summary(path))
    assert len(neb_figure(path).axes) == 1


def test_band_of_images_computed_together():
    atoms = bulk("Ar", a=5.2, cubic=True)
    atoms.positions[0] += 0.3
    atoms.set_constraint(FixAtoms([1, 2, 3]))
    final = atoms.copy()
    final.positions[0] -= 0.6
    config = NebConfig(images=2, steps=3, relax=False, climb=False)
    atoms.calc = Argon()
    together = minimum_energy_path(atoms, final, config)
    assert together.steps <= 3
    for frame in together.frames:
        check = frame.copy()
        check.calc = Argon()
        assert frame.get_potential_energy() == pytest.approx(check.get_potential_energy(), abs=1e-9)


def test_end_points_must_belong_together():
    one, other = adatom("hollow"), adatom("next")
    with pytest.raises(InvalidStructureError, match="same order"):
        minimum_energy_path(one, other[:-1])
    other.numbers[-1] = 79
    with pytest.raises(InvalidStructureError, match="same order"):
        minimum_energy_path(one, other)
    other = adatom("next")
    other.cell[0] *= 1.01
    with pytest.raises(InvalidStructureError, match="same cell"):
        minimum_energy_path(one, other)
    with pytest.raises(SimulationError, match="must differ"):
        minimum_energy_path(one, one)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EosConfig(points=4),
        lambda: EosConfig(span=(0.4, 1.6)),
        lambda: EosConfig(cell="free"),
        lambda: EosConfig(cell="shape", relax_ions=False),
        lambda: ElasticConfig(strain=0),
        lambda: ElasticConfig(points=2),
        lambda: NebConfig(images=0),
        lambda: NebConfig(interpolation="cubic"),
        lambda: NebConfig(fmax=np.nan),
        lambda: NebConfig(steps=-1),
    ],
)
def test_wrong_settings(make):
    with pytest.raises(ValueError, match="`"):
        make()
