"""Small random PET models, and an index of potentials made of them."""

import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from pet_calc.io.models.expected import write_expected
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models.pet import PET, PETConfig

CUTOFF = 3.0


def small_pet(elements=(1, 8), seed=0, dtype=torch.float64):
    """A PET that runs in milliseconds, with forces of about 1 eV/Å and odd reference energies."""
    config = PETConfig(
        elements=elements,
        cutoff=CUTOFF,
        cutoff_width=1.5,
        d_pet=8,
        d_node=12,
        d_head=8,
        d_feedforward=8,
        num_heads=2,
        num_attention_layers=1,
        num_gnn_layers=2,
        input_encoding="radial",
        num_radial=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PET(config, dtype=dtype)
    # digits beyond float32, so that a rounding shows
    model.reference_energies += -1234.56789012345 * torch.arange(1, len(elements) + 1).double()
    model.energy_scale.fill_(1.000000001)
    return model


def liquid(n_molecules=8, seed=0, length=6.0):
    """Water molecules at random orientations on a rattled grid in a cubic cell."""
    generator = np.random.default_rng(seed)
    side = round(n_molecules ** (1 / 3))
    assert side**3 == n_molecules
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3) * length / side
    molecule = np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
    positions = []
    for site in grid:
        rotation = np.linalg.qr(generator.standard_normal((3, 3)))[0]
        positions.extend(site + molecule @ rotation + 0.03 * generator.standard_normal((3, 3)))
    return Atoms("OHH" * n_molecules, positions=positions, cell=[length] * 3, pbc=True)


def card_text(name, model):
    """A card with the front matter that the tests of shipped potentials ask for."""
    front = {
        "name": name,
        "elements": [chemical_symbols[z] for z in model.atomic_numbers],
        "parameters": sum(p.numel() for p in model.parameters()),
        "cutoff_A": model.cutoff,
        "metrics": {"test": {"energy_mae_meV_atom": 0.5, "force_mae_meV_A": 60.0}},
    }
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    return f"---\n{lines}\n---\n# {name}\n\nRandom weights.\n"


def publish(root: Path, **potentials: str):
    """Write an index of random potentials ``name_v1="H O"`` into `root`, and return `root`."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["schema = 1"]
    for seed, (key, elements) in enumerate(potentials.items()):
        name = key.replace("_", "-")
        symbols = elements.split()
        model = small_pet(tuple(sorted(atomic_numbers[s] for s in symbols)), seed)
        folder = root / name
        save_model(folder, model)
        stored = load_model(folder)
        structure = liquid(1, length=4.0)
        structure.numbers[:] = stored.atomic_numbers[0]
        write_expected(folder, stored, {"crystal": structure})
        (folder / "README.md").write_text(card_text(name, stored), encoding="utf-8")
        lines += [
            "[[potential]]",
            f'name = "{name}"',
            f"elements = {json.dumps([chemical_symbols[z] for z in model.atomic_numbers])}",
            'method = "random"',
            f'summary = "potential number {seed}"',
            "[potential.sha256]",
            *(f'"{file}" = "{sha256(folder / file)}"' for file in (CONFIG, WEIGHTS)),
        ]
    (root / "index.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def flip_a_bit(path: Path):
    """Change the last byte of a file by one bit."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rare_pet(seed=0, **options):
    """A random PET in float64 with any options; every head has references of its own."""
    config = {
        "elements": (1, 8), "cutoff": CUTOFF, "cutoff_width": 1.5, "d_pet": 8, "d_node": 12,
        "d_head": 8, "d_feedforward": 8, "num_heads": 2, "num_attention_layers": 1,
        "num_gnn_layers": 2,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PET(PETConfig(**(config | options)), dtype=torch.float64)
    with torch.no_grad():
        if model.conditioning is not None:  # starts at zero, so that it would do nothing
            gate = model.conditioning.project[2].weight
            gate.copy_(torch.randn(gate.shape, dtype=torch.float64, generator=generator))
        model.reference_energies += -7.0
        for k in range(len(model.config.energy_heads) - 1):
            model.variant_reference_energies[k] -= 11.0 + k
    return model.requires_grad_(False)
