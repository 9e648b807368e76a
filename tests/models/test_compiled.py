"""Compiled regions give the numbers of eager mode."""

from __future__ import annotations

import pytest
import torch
from calculators.small_potentials import liquid, small_pet
from contracts.models import ANGULAR, random_pet

from pet_calc.io.models.weights import copy_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.kernels import activations, cutoff_attention, norms
from pet_calc.models import evaluate
from pet_calc.models.pet.compiled import compile_regions
from pet_calc.neighbors import neighbor_list


def kernels(x: torch.Tensor, log_weight: torch.Tensor) -> torch.Tensor:
    attended = cutoff_attention.cutoff_attention(x, log_weight, 2, 0.5)
    return activations.gated_linear_unit(norms.rms_direction(attended))


def test_kernels_inside_a_compiled_region_are_their_references() -> None:
    """Traced whole, without a break where a derivative is written out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 24, generator=generator, dtype=torch.float64, requires_grad=True)
    log_weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    compiled = torch.compile(kernels, backend="eager", fullgraph=True)
    results = []
    for function in (kernels, compiled):
        y = function(x, log_weight)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
    for eager, traced in zip(*results, strict=True):
        assert (eager - traced).abs().max() < 1e-13
    torch._dynamo.reset()


def test_trainable_models_are_refused() -> None:
    with pytest.raises(ValueError, match="must be frozen"):
        compile_regions(small_pet())


@pytest.mark.slow
# both from inside torch.compile
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("options", [{}, ANGULAR])
def test_compiled_model_agrees_at_other_shapes_too(options: dict[str, object]) -> None:
    model = random_pet(2, **options).requires_grad_(False)
    compiled = compile_regions(copy_model(model, torch.float64))
    for seed in range(3):
        system = system_from_atoms(liquid(seed=seed, length=6.0 + 0.3 * seed))
        edges = neighbor_list(system, model.cutoff)
        a, b = evaluate(model, system, edges), evaluate(compiled, system, edges)
        assert (a.energies - b.energies).abs().max() < 1e-10
        assert (a.forces - b.forces).abs().max() < 1e-10
        assert (a.stress - b.stress).abs().max() < 1e-12
    torch._dynamo.reset()
