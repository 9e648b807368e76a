"""Schedule, samplers and the denoiser."""

import math

import pytest
import torch
from crystals.diffusion.crystals_for_tests import CRYSTALS
from torch import Tensor

from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.sampler import guided, sample
from pet_calc.crystals.diffusion.schedule import CosineSchedule, add_noise, alpha_sigma
from pet_calc.crystals.diffusion.sparse import (
    N_LATTICE,
    Slots,
    SparseConfig,
    UniMatSparse,
    rotated,
    rotation_of,
)

SCHEDULE = CosineSchedule(10.0, -10.0)


def gaussian_noise(z: Tensor, logsnr: Tensor, mean: Tensor, width: float) -> Tensor:
    """The exact ε of data that are normal with this mean and width."""
    alpha, sigma = alpha_sigma(logsnr.view(-1, *[1] * (z.dim() - 1)))
    return sigma * (z - alpha * mean) / (alpha**2 * width**2 + sigma**2)


def test_schedule_is_cosine_and_ends_where_it_should() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    logsnr = SCHEDULE.logsnr(t)
    assert logsnr[0].item() == pytest.approx(10.0)
    assert logsnr[-1].item() == pytest.approx(-10.0)
    wide = CosineSchedule(60.0, -60.0).logsnr(t)
    alpha, sigma = alpha_sigma(wide)
    torch.testing.assert_close(alpha, torch.cos(0.5 * math.pi * t), atol=1e-9, rtol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    with pytest.raises(ValueError, match="must fall"):
        CosineSchedule(-1.0, 1.0)


def test_noise_is_added_to_each_sample_at_its_own_level() -> None:
    x, noise = torch.randn(
        2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    logsnr = torch.linspace(-9, 9, 4, dtype=torch.float64)
    z = add_noise(x, noise, logsnr)
    for k, level in enumerate(logsnr):
        alpha, sigma = alpha_sigma(level)
        torch.testing.assert_close((z[k] - sigma * noise[k]) / alpha, x[k])


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_samplers_reproduce_a_normal_distribution(method: str) -> None:
    mean = torch.tensor([0.3, -0.8, 0.5])
    width = 0.2

    def denoise(z: Tensor, logsnr: Tensor) -> Tensor:
        return gaussian_noise(z, logsnr, mean, width)

    generator = torch.Generator().manual_seed(3)
    start = torch.randn(20000, 3, generator=generator)
    config = SamplerConfig(method=method, steps=200, variance=0.5)  # type: ignore[arg-type]
    found = sample(denoise, start, SCHEDULE, config, generator=generator)
    torch.testing.assert_close(found.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(found.std(0), torch.full((3,), width), atol=0.01, rtol=0)
    # one step alone gives the mean without its spread: the test can fail
    once = sample(denoise, start, SCHEDULE, SamplerConfig(steps=1), generator=generator)
    assert float(once.std(0).max()) < 0.5 * width


def small_sparse(form: int) -> UniMatSparse:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = SparseConfig(width=32, heads=2, layers=2, slots=6, form=form)
        model = UniMatSparse(config).double()
        for block in model.blocks:
            torch.nn.init.normal_(block.modulation.weight, std=0.1)
    return model


@pytest.mark.parametrize("form", [1, 2])
def test_sparse_denoiser_ignores_padding_and_follows_the_condition(form: int) -> None:
    model = small_sparse(form)
    occupied = Slots.of([c.numbers for c in CRYSTALS])
    z = torch.randn(
        *occupied.mask.shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    logsnr = torch.zeros(3, dtype=torch.float64)
    together = model(z, logsnr, occupied)
    n = len(CRYSTALS[0].numbers)
    alone = model(z[:1, : N_LATTICE + n], logsnr[:1], Slots.of([CRYSTALS[0].numbers]))
    torch.testing.assert_close(together[:1, : N_LATTICE + n], alone)
    hidden = torch.ones(3, dtype=torch.bool)
    other = Slots(torch.where(occupied.atoms, 26, 0), occupied.slots)
    assert not torch.allclose(together, model(z, logsnr, other))
    torch.testing.assert_close(model(z, logsnr, occupied, hidden), model(z, logsnr, other, hidden))


def test_rotary_attention_sees_differences_of_fractional_coordinates() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, N_LATTICE + 4, 14, dtype=torch.float64, generator=generator)
    places = 2 * torch.rand(1, 4, 3, dtype=torch.float64, generator=generator) - 1

    def products(locations: Tensor) -> Tensor:
        rotation = rotation_of(locations, 14)
        return rotated(q, rotation) @ rotated(k, rotation).transpose(-1, -2)

    atoms = slice(N_LATTICE, None)
    here = products(places)
    # a common shift, and other images of an atom: 2 is a whole cell as diffused
    shifted = products(places + torch.tensor([0.3, -0.2, 0.7]))
    images = places.clone()
    images[0, 1, 2] += 2.0
    torch.testing.assert_close(shifted[..., atoms, atoms], here[..., atoms, atoms])
    torch.testing.assert_close(products(images), here)
    moved = places.clone()
    moved[0, 1, 2] += 0.5
    assert not torch.allclose(products(moved), here)


def test_velocity_form_is_exact_where_noise_alone_says_nothing() -> None:
    """With v = −σ x its estimate of x is exact for x = 0 at all noise levels: the skip is right."""
    model = small_sparse(2)
    for layer in (model.to_location, model.to_lengths, model.to_angles):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    occupied = Slots.of([c.numbers for c in CRYSTALS])
    z = torch.randn(*occupied.mask.shape, 3, dtype=torch.float64)
    for level in (-8.0, 0.0, 8.0):
        logsnr = torch.full((3,), level, dtype=torch.float64)
        alpha, sigma = alpha_sigma(logsnr[:, None, None])
        found = (z - sigma * model(z, logsnr, occupied)) / alpha
        torch.testing.assert_close(found, alpha * z)


def test_guidance_weighs_the_two_denoisers() -> None:
    z, l = torch.ones(2, 3), torch.zeros(2)
    a, b = (lambda z, _, k=k: k * z for k in (3.0, 1.0))
    assert guided(a, b, 1.0) is a
    torch.testing.assert_close(guided(a, b, 2.0)(z, l), 5.0 * z)
    torch.testing.assert_close(guided(a, b, 0.0)(z, l), z)
