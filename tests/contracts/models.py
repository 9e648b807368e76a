"""Models under contract, and broken copies of Lennard-Jones that each check has to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from contracts.energy_model import Potential
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models import LennardJones, Results, evaluate
from pet_calc.models.crystalformer import Crystalformer, CrystalformerConfig
from pet_calc.models.ecse import FrameConfig
from pet_calc.models.pet import PET, PETConfig
from pet_calc.neighbors import neighbor_list

ELEMENTS = (1, 8, 14)


def lennard_jones(dtype: torch.dtype = torch.float64) -> LennardJones:
    """Lennard-Jones whose atoms are small enough for an O–H bond."""
    return LennardJones(ELEMENTS, **LJ_OPTIONS, dtype=dtype)


LJ_OPTIONS = {"epsilon": 0.05, "sigma": 1.1, "cutoff": 4.0, "cutoff_width": 1.5}


def pet_config(**changes: object) -> PETConfig:
    """A PET small enough to be evaluated thousands of times."""
    options: dict[str, object] = {
        "elements": ELEMENTS,
        "cutoff": 3.6,
        "cutoff_width": 0.8,
        "d_pet": 16,
        "d_node": 24,
        "d_head": 16,
        "d_feedforward": 24,
        "num_heads": 4,
        "num_attention_layers": 2,
        "num_gnn_layers": 2,
        "num_radial": 8,
    }
    return PETConfig(**(options | changes))  # type: ignore[arg-type]


def random_pet(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object) -> PET:
    """PET with random weights of unit gain and random reference energies."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = PET(pet_config(**changes), dtype=dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1.0 + 0.1 * noise)
            else:
                fan_in = p.shape[-1] if p.dim() > 1 and "embedder.weight" not in name else 9
                p.copy_(noise / fan_in**0.5)
        references = torch.randn(len(ELEMENTS), dtype=torch.float64, generator=generator)
        model.reference_energies.copy_(references)
        model.energy_scale.fill_(0.3)
    return model


def random_crystalformer(
    seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object
) -> Crystalformer:
    """A small Crystalformer with random weights and random reference energies."""
    options: dict[str, object] = {
        "elements": ELEMENTS,
        "cutoff": 3.6,
        "cutoff_width": 1.2,
        "d_model": 16,
        "num_heads": 4,
        "num_layers": 2,
        "d_feedforward": 24,
        "d_head": 16,
        "gaussian_width": 0.8,
        "gaussian_width_max": 1.6,
        "num_radial": 12,
        "radial_max": 4.0,
    }
    config = CrystalformerConfig(**(options | changes))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = Crystalformer(config, dtype=dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            if "norm" in name:
                p.copy_(1.0 + 0.1 * noise)
            else:
                fan_in = p.shape[-1] if p.dim() > 1 and name != "embedding.weight" else 4
                p.copy_(noise / fan_in**0.5)
        for block in model.blocks:
            block.attention.gauss_scale.copy_(torch.tensor([1.3, -0.2]))
        references = torch.randn(len(ELEMENTS), dtype=torch.float64, generator=generator)
        model.reference_energies.copy_(references)
        model.energy_scale.fill_(3.0)
    return model


#: Frames whose weights change over wide ranges, so that differences resolve the forces.
GENTLE = FrameConfig(num_prunings=1, pruning_threshold=0.5, pruning_width=0.5)
#: Frames of which none is pruned and which come and go slowly.
GENTLER = FrameConfig(
    beta=2.0, taper=1.0, collinearity=0.6, collinearity_width=0.6, num_prunings=0, hand_over=0.5
)
#: Attention that sees angles, and nothing that turns with the structure.
ANGULAR: dict[str, object] = {"input_encoding": "distance", "angular_degree": 3}

MODELS: dict[str, Callable[[], Potential]] = {
    "lj": lambda: Potential(lennard_jones()),
    "pet-cartesian": lambda: Potential(random_pet(1)),
    "pet-radial": lambda: Potential(random_pet(2, input_encoding="radial")),
    "pet-angular": lambda: Potential(random_pet(4, **ANGULAR)),
    "pet-layerwise": lambda: Potential(
        random_pet(3, input_encoding="radial", ecse="layerwise", frames=GENTLE)
    ),
    "crystalformer": lambda: Potential(random_crystalformer(1)),
    "crystalformer-normalized": lambda: Potential(
        random_crystalformer(2, normalization="RMSNorm", short_range_repulsion=True)
    ),
    "crystalformer-frames": lambda: Potential(
        random_crystalformer(5, num_radial=6, num_angular=5, frames=GENTLER)
    ),
}
"""Potentials in float64, under every contract."""

FLOAT32_MODELS: dict[str, Callable[[], Potential]] = {
    "lj-float32": lambda: Potential(lennard_jones(torch.float32), tolerance=2e-5),
    "pet-cartesian-float32": lambda: Potential(random_pet(1, torch.float32), tolerance=2e-5),
    "pet-radial-float32": lambda: Potential(
        random_pet(2, torch.float32, input_encoding="radial"), tolerance=2e-5
    ),
    "pet-angular-float32": lambda: Potential(
        random_pet(4, torch.float32, **ANGULAR), tolerance=2e-5
    ),
    "crystalformer-float32": lambda: Potential(
        random_crystalformer(1, torch.float32), tolerance=2e-5
    ),
}
"""In float32, under those that do not take differences of energies."""


# --- broken models -----------------------------------------------------------------------------


class BrokenModel(LennardJones):
    """Lennard-Jones whose pair energies a subclass spoils."""

    def __init__(self) -> None:
        super().__init__(ELEMENTS, **LJ_OPTIONS)

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return self.spoil(super().energies(system, edges, vectors), system, edges, vectors)

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        raise NotImplementedError


class _TooSteep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 1.001 * gradient


class WrongGradient(BrokenModel):
    """The backward pass is 0.1 % too large."""

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return LennardJones.energies(self, system, edges, _TooSteep.apply(vectors))


class NumberedAtoms(BrokenModel):
    """The energy of an atom depends on its place in the list."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return energies * (1 + 1e-6 * torch.arange(system.n_atoms))


class SeesCellShifts(BrokenModel):
    """The energy depends on which image of an atom was given."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        far = 1e-6 * edges.cell_shifts.square().sum(-1).double()
        return energies.index_add(0, edges.edge_index[0], far)


class NotExtensive(BrokenModel):
    """The energy per atom depends on the number of atoms."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return energies + 1e-6 * system.n_atoms


class LeaksAcrossBatch(BrokenModel):
    """A batch normalization: the mean over all atoms enters every energy."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return energies + 1e-6 * energies.mean()


class SharpCutoff(BrokenModel):
    """Pairs are cut off at once: the energy jumps."""

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        r = vectors.square().sum(-1).sqrt()
        x6 = (self.sigma / r) ** 6
        zero = torch.zeros(system.n_atoms, dtype=torch.float64)
        return zero.index_add(0, edges.edge_index[0], 2 * self.epsilon * (x6 * x6 - x6))


class KinkAtCutoff(BrokenModel):
    """The energy goes to zero linearly at the cutoff: the force jumps."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        r = vectors.square().sum(-1).sqrt()
        return energies.index_add(0, edges.edge_index[0], 1e-4 * (self.cutoff - r))


class Anisotropic(BrokenModel):
    """Bonds along z count more."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        r = vectors.square().sum(-1).sqrt()
        along = 1e-6 * vectors[:, 2].square() * (1 - r / self.cutoff) ** 4
        return energies.index_add(0, edges.edge_index[0], along)


class NotANumberWhenAlone(BrokenModel):
    """An atom without neighbors has 0 / 0."""

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        count = torch.bincount(edges.edge_index[0], minlength=system.n_atoms)
        return energies * (count / count)


class Forgetful(BrokenModel):
    """Half of its parameters are not in the state dict."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        return self.strength * energies


class Remembers(BrokenModel):
    """Every evaluation changes the next."""

    calls = 0

    def spoil(self, energies: Tensor, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        self.calls += 1
        return energies + 1e-9 * self.calls


# --- models in order, whose surroundings are broken --------------------------------------------


class AbsolutePositions(Potential):
    """A field that pulls every atom along x."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        return replace(r, energy=r.energy + 1e-6 * system.positions[:, 0].sum())


class OneSided(Potential):
    """Forces act on the center of an edge only: no reaction."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        edges = neighbor_list(system, self.model.cutoff)
        vectors = edge_vectors(system, edges).requires_grad_()
        energies = self.model.energies(system, edges, vectors).sum()
        (g,) = torch.autograd.grad(energies, vectors)
        forces = torch.zeros(system.n_atoms, 3).double().index_add(0, edges.edge_index[0], g)
        forces[0] *= 2.0
        return replace(r, forces=forces)


class MinimumImage(Potential):
    """Counts one image of each neighbor at most, and none of the atom itself."""

    def __call__(self, system: System) -> Results:
        edges = neighbor_list(system, self.model.cutoff)
        i, j = edges.edge_index
        r = edge_vectors(system, edges).norm(dim=1)
        nearest = torch.full((system.n_atoms, system.n_atoms), torch.inf, dtype=torch.float64)
        nearest = nearest.flatten().scatter_reduce(0, i * system.n_atoms + j, r, "amin")
        keep = (i != j) & (r <= nearest[i * system.n_atoms + j] + 1e-9)
        return evaluate(self.model, system, edges.select(keep))


class SignedVolume(Potential):
    """Divides the virial by det(cell)."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        assert r.stress is not None
        return replace(r, stress=r.stress * torch.linalg.det(system.cell).sign()[:, None])


class WrongVoigtOrder(Potential):
    """Shear components in the order xy, xz, yz."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        assert r.stress is not None
        return replace(r, stress=r.stress[:, [0, 1, 2, 5, 4, 3]])


class BatchReversed(Potential):
    """Hands out the energies of a batch in the wrong order."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        return replace(r, energy=r.energy.flip(0))


class EnergyIsNotTheSum(Potential):
    """The energy contains something that no atom has."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        return replace(r, energy=r.energy + 1e-6)


class SinglePrecisionResults(Potential):
    """Sums energies in float32."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        return replace(r, energy=r.energy.float())


class StressOfASlab(Potential):
    """Gives a stress where none is defined."""

    def __call__(self, system: System) -> Results:
        r = super().__call__(system)
        assert r.stress is not None
        return replace(r, stress=r.stress.nan_to_num())


class MovesAtoms(Potential):
    """Wraps the caller's atoms in place."""

    def __call__(self, system: System) -> Results:
        system.positions.remainder_(4.0)
        return super().__call__(system)


class LooksTooFar(Potential):
    """Uses pairs beyond the cutoff that it declares."""

    def __call__(self, system: System) -> Results:
        edges = neighbor_list(system, self.model.cutoff + 0.5)
        return evaluate(self.model, system, edges)


def broken(model: type[BrokenModel]) -> Callable[[], Potential]:
    """A potential in order around a broken model."""
    return lambda: Potential(model())


def misused(potential: type[Potential]) -> Callable[[], Potential]:
    """A broken potential around a model in order."""
    return lambda: potential(lennard_jones())


BROKEN: list[tuple[str, str, Callable[[], Potential]]] = [
    ("forces_match_energy", "water-24", broken(WrongGradient)),
    ("forces_match_energy", "molecule-4", misused(OneSided)),
    ("stress_matches_energy", "silicon-2-strained", broken(WrongGradient)),
    ("stress_matches_energy", "left-handed-4", misused(WrongVoigtOrder)),
    ("stress_matches_energy", "left-handed-4", misused(SignedVolume)),
    ("permutation_invariant", "water-24", broken(NumberedAtoms)),
    ("translation_invariant", "molecule-4", misused(AbsolutePositions)),
    ("translation_invariant", "slab-9", misused(OneSided)),
    ("wrap_invariant", "water-24", broken(SeesCellShifts)),
    ("rotation_invariant", "dense-random-12", broken(Anisotropic)),
    ("supercell_extensive", "water-24", broken(NotExtensive)),
    ("supercell_extensive", "silicon-2-strained", misused(MinimumImage)),
    ("supercell_extensive", "one-atom-crystal", misused(MinimumImage)),
    ("fragments_additive", "molecule-4", broken(NotExtensive)),
    ("fragments_additive", "one-atom", broken(NotExtensive)),
    ("smooth_through_cutoff", "water-24", broken(SharpCutoff)),
    ("smooth_through_cutoff", "molecule-4", broken(KinkAtCutoff)),
    ("blind_beyond_cutoff", "molecule-4", lambda: LooksTooFar(SharpCutoff())),
    ("batch_equals_single", "water-24", broken(LeaksAcrossBatch)),
    ("batch_equals_single", "molecule-4", misused(BatchReversed)),
    ("batch_equals_single", "dense-random-12", broken(NumberedAtoms)),
    ("no_cross_talk", "water-24", broken(LeaksAcrossBatch)),
    ("handedness_is_immaterial", "left-handed-4", misused(SignedVolume)),
    ("choice_of_cell_is_immaterial", "silicon-2-strained", broken(SeesCellShifts)),
    ("results_well_formed", "one-atom", broken(NotANumberWhenAlone)),
    ("results_well_formed", "water-24", misused(EnergyIsNotTheSum)),
    ("results_well_formed", "water-24", misused(SinglePrecisionResults)),
    ("results_well_formed", "slab-9", misused(StressOfASlab)),
    ("inputs_untouched", "water-24", misused(MovesAtoms)),
    ("repeatable", "water-24", broken(Remembers)),
]
"""Check, structure and the potential that the check has to refuse on it."""
