"""Crystalformer against the public code's outputs, and what the smooth form repairs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.energy_model import (
    Potential,
    batch_equals_single,
    choice_of_cell_is_immaterial,
    forces_match_energy,
    handedness_is_immaterial,
    permutation_invariant,
    repeated,
    results_well_formed,
    rotation_invariant,
    same,
    smooth_through_cutoff,
    stress_matches_energy,
    supercell_extensive,
    translation_invariant,
    wrap_invariant,
)
from contracts.models import GENTLE, random_crystalformer
from contracts.structures import STRUCTURES
from models.published_crystalformer import MODES, crystal, golden, public_state, published

from pet_calc.errors import InvalidStructureError, UnsupportedElementError
from pet_calc.geometry import System, edge_vectors
from pet_calc.models import evaluate
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.crystalformer.attention import width_factor
from pet_calc.models.crystalformer.directions import directional_encoding
from pet_calc.models.ecse import local_frames
from pet_calc.neighbors import neighbor_list


@pytest.fixture(scope="module")
def folder(reference_dir):
    return reference_dir / "crystal"


# --- the published form ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_published_outputs(folder, mode):
    reference = golden(folder)
    model = published(folder, mode)
    for name, output in reference[mode]["output"].items():
        found = model.properties(crystal(reference["crystals"][name])).item()
        assert abs(found - output) < 1e-12


def test_published_outputs_notice_a_wrong_weight(folder):
    reference = golden(folder)
    model = published(folder, "default")
    model.blocks[2].attention.width_weight[3, 5] += 1e-3
    found = model.properties(crystal(reference["crystals"]["NaCl_prim"])).item()
    assert abs(found - reference["default"]["output"]["NaCl_prim"]) > 1e-10


@pytest.mark.parametrize("mode", MODES)
def test_number_of_parameters(folder, mode):
    # the public count includes the frozen scales, which are buffers here
    found = sum(p.numel() for p in published(folder, mode).parameters()) + 4 * 3
    assert found == golden(folder)[mode]["params_total"]


@pytest.mark.parametrize("mode", MODES)
def test_smooth_images_approach_the_box(folder, mode):
    reference = golden(folder)
    errors = {}
    for cutoff in (6.0, 8.0):
        model = published(
            folder, mode, images="smooth", cutoff=cutoff, cutoff_width=1.0, reciprocal_cutoff=5.0
        )
        gaps = []
        for name, output in reference[mode]["output"].items():
            system = crystal(reference["crystals"][name])
            found = model.properties(system, neighbor_list(system, cutoff)).item()
            gaps.append(abs(found - output))
        errors[cutoff] = max(gaps)
    assert errors[8.0] < 1e-4
    if mode == "default":
        assert errors[6.0] > 1e-4  # the bound can fail


def test_frozen_widths_are_those_of_the_first_batch(folder):
    """The public code standardized its widths on one batch; which one, the numbers tell."""
    reference = golden(folder)
    for mode in ("default", "simplified_noVPE"):
        model = published(folder, mode)
        wanted = torch.tensor(reference[mode]["gauss_scale"], dtype=torch.float64)
        systems = [crystal(reference["crystals"][n]) for n in reference["crystals"]]
        gaps = []
        for batch in (*systems, System.concatenate(systems), System.concatenate(systems[:2])):
            model.freeze_widths(batch)
            found = torch.stack([b.attention.gauss_scale for b in model.blocks])
            gaps.append(float((found - wanted).abs().max()))
        assert min(gaps) < 1e-12


def test_box_depends_on_the_description_of_a_crystal(folder):
    """What the smooth form repairs: the published one sees where an atom was put."""
    crystal_ = crystal(golden(folder)["crystals"]["SrTiO3_tri"])
    shift = torch.zeros_like(crystal_.positions)
    shift[1] = 2 * crystal_.cell[0, 0]
    moved = replace(crystal_, positions=crystal_.positions + shift)
    box = published(folder, "default")
    assert abs(box.properties(moved) - box.properties(crystal_)).item() > 1e-4
    smooth = published(folder, "default", images="smooth", cutoff=8.0, cutoff_width=1.0)
    a, b = (smooth.properties(s, neighbor_list(s, 8.0)) for s in (crystal_, moved))
    assert abs(a - b).item() < 1e-13


def test_published_form_has_the_gradients_that_the_public_code_lacks(folder):
    """Of the output with respect to positions, values' encoding included, by differences."""
    system = crystal(golden(folder)["crystals"]["SrTiO3_tri"])
    model = published(
        folder, "default", images="smooth", cutoff=5.0, activation="SiLU", width_function="softplus"
    )

    def output(x):
        s = replace(system, positions=x)
        return model.properties(s, neighbor_list(s, 5.0))

    assert torch.autograd.gradcheck(output, system.positions.clone().requires_grad_(), atol=1e-8)


# --- the potential -----------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["silicon-2-strained", "one-atom-crystal"])
def test_one_element_feels_geometry(structure):
    model = random_crystalformer(1)
    system = STRUCTURES[structure]()

    def energy(scale):
        s = replace(system, cell=scale * system.cell, positions=scale * system.positions)
        return evaluate(model, s, neighbor_list(s, model.cutoff)).energy.item()

    energies = [energy(s) for s in np.linspace(1.0, 1.1, 5)]
    assert np.abs(np.diff(energies)).min() > 1e-3


def test_crystal_becomes_free_atoms_continuously():
    model = random_crystalformer(1)
    free = STRUCTURES["one-atom"]()
    free = replace(free, numbers=torch.tensor([14]))
    lone = evaluate(model, free, neighbor_list(free, model.cutoff)).energy.item()
    crystal_ = STRUCTURES["one-atom-crystal"]()
    gaps = []
    for length in (3.0, 3.5, 3.59, model.cutoff - 1e-9, 4.0):
        system = replace(crystal_, cell=length * torch.eye(3, dtype=torch.float64)[None])
        e = evaluate(model, system, neighbor_list(system, model.cutoff)).energy.item()
        gaps.append(abs(e - lone))
    assert gaps[0] > 1e-3
    assert gaps[3] < 1e-12
    assert gaps[4] < 1e-12


@pytest.mark.parametrize(
    "options",
    [{}, {"num_angular": 5, "frames": GENTLE}, {"domain": "multihead", "reciprocal_width": 1.5}],
    ids=["real", "frames", "long-range"],
)
def test_forces_to_the_last_digits(options):
    """Fourth-order differences of a step that balances truncation and rounding."""
    model = random_crystalformer(1, cutoff_width=3.0, **options)
    system = STRUCTURES["left-handed-4"]()
    potential = Potential(model)
    forces = potential(system).forces
    h = 4e-4
    for atom in range(system.n_atoms):
        for axis in range(3):
            moved = []
            for step in (-2, -1, 1, 2):
                x = system.positions.clone()
                x[atom, axis] += step * h
                moved.append(replace(system, positions=x))
            e = potential.energy(System.concatenate(moved))
            slope = (e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * h)
            assert abs(slope + forces[atom, axis]) < 1e-7


def test_second_derivatives():
    """The loss on forces has the gradient on the weights that differences give."""
    model = random_crystalformer(1).requires_grad_()
    system = STRUCTURES["left-handed-4"]()
    edges = neighbor_list(system, model.cutoff)
    weight = model.blocks[0].attention.value_encoding

    def loss():
        return evaluate(model, system, edges, create_graph=True).forces.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    h = 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * h * direction
        values.append(loss().item())
        with torch.no_grad():
            weight -= sign * h * direction
    numeric = (values[0] - values[1]) / (2 * h)
    assert numeric == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_width_functions():
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64, requires_grad=True)
    for function in ("softplus", "elu"):
        config = CrystalformerConfig(
            elements=(1,), width_function=function, gaussian_slope=0.2, gaussian_floor=0.4
        )
        rho = width_factor(x, config)
        (slope,) = torch.autograd.grad(rho.sum(), x)
        assert rho[1000].item() == pytest.approx(1.0, abs=1e-14)
        assert slope[1000].item() == pytest.approx(0.2, abs=1e-14)
        assert rho.min() >= 0.4
        assert bool((rho.diff() >= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_of_the_width_stay_finite(dtype):
    """Far out and across the places where an implementation may change its form."""
    config = CrystalformerConfig(elements=(1,), gaussian_slope=0.2, gaussian_floor=0.4)
    x = torch.linspace(-1000, 1000, 4001, dtype=dtype, requires_grad=True)
    derivatives = [width_factor(x, config)]
    for _ in range(3):
        (next_one,) = torch.autograd.grad(derivatives[-1].sum(), x, create_graph=True)
        derivatives.append(next_one)
    for d in derivatives:
        assert bool(torch.isfinite(d).all())
    second = derivatives[2].detach()
    # smooth: no step of the second derivative is larger than its steepest slope allows
    allowed = 0.5 * float(derivatives[3].detach().abs().max()) + 1e-6
    assert float(second.diff().abs().max()) <= 1.05 * allowed
    assert bool((second >= 0).all())


def test_other_elements_are_refused():
    system = replace(STRUCTURES["one-atom"](), numbers=torch.tensor([74]))
    with pytest.raises(UnsupportedElementError, match=r"\[74\]"):
        evaluate(random_crystalformer(), system, neighbor_list(system, 3.6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": (8, 1)}, "ascending"),
        ({"elements": (1,), "images": "box"}, "makes energies jump"),
        ({"elements": (1,), "num_radial": 0}, "does not feel"),
        ({"elements": (1,), "domain": "reci"}, "does not feel"),
        ({"elements": (1,), "domain": "complex"}, "'real' or 'multihead'"),
        ({"elements": (1,), "cutoff_width": 9.0}, "cutoff_width"),
        ({"elements": (1,), "num_angular": 1}, "at least 2"),
        (
            {"elements": (1,), "num_angular": 8, "images": "box", "readout": "mean"},
            "'box'",
        ),
        ({"elements": (1,), "num_heads": 5}, "multiple"),
        ({"elements": (1,), "readout": "mean"}, "targets"),
        ({"elements": (1,), "gaussian_floor": 1.0}, "gaussian_floor"),
    ],
)
def test_configurations_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        CrystalformerConfig(**options)


def test_models_say_what_they_are_for():
    system = STRUCTURES["silicon-2-strained"]()
    property_model = Crystalformer(CrystalformerConfig.published(num_layers=1))
    with pytest.raises(ValueError, match="no potential"):
        evaluate(property_model, system, neighbor_list(system, 6.0))
    with pytest.raises(ValueError, match="predicts no properties"):
        random_crystalformer().properties(system)


# --- directions in local frames ----------------------------------------------------------------


def test_directional_encoding_is_the_mean_over_frames():
    """Against a loop over frames, each with its mirror image, and the neighbors in them."""
    k, cutoff = 5, 3.6
    centers = torch.linspace(-1, 1, k, dtype=torch.float64)
    spacing = 2.0 / (k - 1)
    system = STRUCTURES["silicon-2-strained"]()
    edges = neighbor_list(system, cutoff)
    vectors = edge_vectors(system, edges)
    found = directional_encoding(edges, vectors, system.n_atoms, cutoff, k, GENTLE)
    center = edges.edge_index[0]
    set_ = local_frames(center, vectors, system.n_atoms, cutoff - GENTLE.taper, GENTLE)
    assert set_.frame_free.max() == 0  # so that frames are all that counts
    total, expected = torch.zeros(system.n_atoms).double(), torch.zeros(len(vectors), 3, k).double()
    frames = set_.frames
    for atom, matrix, weight in zip(frames.atom, frames.matrix, frames.weight, strict=True):
        for mirror in (1.0, -1.0):
            axes = matrix * torch.tensor([1.0, mirror, 1.0]).double()
            for e in torch.nonzero(center == atom)[:, 0]:
                cosines = vectors[e] @ axes / vectors[e].norm()
                gauss = torch.exp(-0.5 * ((cosines[:, None] - centers) / spacing) ** 2)
                expected[e] += weight * gauss
            total[atom] += weight
    expected /= total[center][:, None, None]
    same(found[:, :k], expected[:, 0], 1e-12, "first axis")
    same(found[:, k : k + 3], expected[:, 1, :3], 1e-12, "second axis")
    same(expected[:, 1], expected[:, 1].flip(-1), 1e-12, "mirror images")
    same(found[:, k + 3 :], expected[:, 2], 1e-12, "third axis")


def test_directions_tell_what_distances_do_not():
    """A bent molecule whose ends are beyond the cutoff from each other."""

    def energy(model, angle):
        h = 1.0 * np.array([[1.0, 0, 0], [np.cos(angle), np.sin(angle), 0]])
        positions = torch.from_numpy(np.concatenate([np.zeros((1, 3)), h]))
        system = System.single(positions, torch.tensor([8, 1, 1]))
        return evaluate(model, system, neighbor_list(system, model.cutoff)).energy.item()

    options = {"cutoff": 1.4, "cutoff_width": 0.6}
    plain = random_crystalformer(5, **options)
    assert abs(energy(plain, 1.7) - energy(plain, 2.1)) < 1e-13
    framed = random_crystalformer(5, num_angular=6, **options)
    assert abs(energy(framed, 1.7) - energy(framed, 2.1)) > 1e-3


def test_directions_in_a_perfect_crystal():
    """Where the published frames are drawn at random: the same again, in any orientation."""
    model = random_crystalformer(5, num_angular=6)
    a = 3.2
    cell = 0.5 * a * torch.tensor([[[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]]]).double()
    crystal_ = replace(STRUCTURES["one-atom-crystal"](), cell=cell)
    potential = Potential(model)
    energy = potential(crystal_).energy
    assert torch.equal(potential(crystal_).energy, energy)
    rotation_invariant(potential, crystal_)
    supercell_extensive(potential, crystal_)
    assert potential(crystal_).forces.abs().max() < 1e-12


def test_directions_in_property_models():
    system = STRUCTURES["silicon-2-strained"]()
    config = CrystalformerConfig.published(
        images="smooth", cutoff=5.0, num_angular=6, num_layers=1, targets=("gap",)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Crystalformer(config, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator()))[0]
    turned = replace(system, positions=system.positions @ turn, cell=system.cell @ turn)
    a, b = (model.properties(s, neighbor_list(s, 5.0)) for s in (system, turned))
    assert abs(a - b).item() < 1e-12
    assert CrystalformerConfig.from_dict(config.to_dict()) == config


# --- heads in reciprocal space -----------------------------------------------------------------

LONG_RANGE = {"domain": "multihead", "reciprocal_width": 1.5, "reciprocal_cutoff": 4.0}


@pytest.fixture(params=["multihead", "real-reci"])
def long_range(request):
    return Potential(random_crystalformer(4, **(LONG_RANGE | {"domain": request.param})))


@pytest.mark.parametrize(
    "check",
    [
        forces_match_energy,
        stress_matches_energy,
        permutation_invariant,
        translation_invariant,
        wrap_invariant,
        rotation_invariant,
        handedness_is_immaterial,
        choice_of_cell_is_immaterial,
        supercell_extensive,
        smooth_through_cutoff,
        batch_equals_single,
        results_well_formed,
    ],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize("structure", ["silicon-2-strained", "left-handed-4", "one-atom-crystal"])
def test_contracts_of_long_range_models(check, structure, long_range):
    check(long_range, STRUCTURES[structure]())


def test_molecules_have_long_range_heads_too(long_range):
    for check in (forces_match_energy, permutation_invariant, rotation_invariant):
        check(long_range, STRUCTURES["molecule-4"]())


def test_long_range_sees_beyond_the_cutoff(long_range):
    crystal_ = STRUCTURES["silicon-2-strained"]()
    crystal_ = repeated(replace(crystal_, numbers=torch.tensor([14, 8])), (3, 3, 3))
    free = replace(crystal_, cell=torch.zeros_like(crystal_.cell), pbc=torch.zeros(1, 3).bool())
    far = System.single(
        torch.tensor([[0.0, 0, 0], [0, 0, 5.0]], dtype=torch.float64), torch.tensor([14, 8])
    )
    forces = long_range(far).forces
    assert forces.abs().max() > 1e-6
    assert long_range.model.cutoff < 5.0
    results = long_range(free)
    same(results.forces.sum(0), torch.zeros(3).double(), 1e-10, "sum of forces")


def test_slabs_are_refused_by_long_range_models(long_range):
    with pytest.raises(InvalidStructureError, match="three dimensions or none"):
        long_range(STRUCTURES["slab-9"]())


def test_wave_vectors_converge_to_the_sum_over_images(folder):
    """Gaussian weights by Poisson's formula against the direct sum."""
    from pet_calc.models.crystalformer.reciprocal import smooth_waves

    system = STRUCTURES["left-handed-4"]()
    variance = torch.full((4, 1), 1.3**2, dtype=torch.float64)
    (waves,) = smooth_waves(system, torch.arange(4), 8.0, 1.0)
    steps = torch.arange(-5, 6)
    shifts = torch.cartesian_prod(steps, steps, steps).double() @ system.cell[0]
    x = system.positions
    square = (x[None, :, None] - x[:, None, None] + shifts).square().sum(-1)
    direct = torch.exp(-square / (2 * 1.3**2)).sum(-1)
    assert float((waves.weights(variance)[:, 0] - direct).abs().max()) < 1e-9
    (coarse,) = smooth_waves(system, torch.arange(4), 3.0, 1.0)
    assert float((coarse.weights(variance)[:, 0] - direct).abs().max()) > 1e-6


def test_public_state_covers_every_mode(folder):
    for mode in MODES:
        state = public_state(folder, mode, golden(folder)[mode]["gauss_scale"])
        assert len(state) == 5 + 4 * (14 if mode == "default" else 13)
