"""Every option of PET: all combinations work, and a covering set obeys every contract."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from contracts.energy_model import CHECKS, PERIODIC_CHECKS, Potential
from contracts.models import pet_config, random_pet
from contracts.structures import PERIODIC, STRUCTURES

from pet_calc.io.weights import load_model, save_model
from pet_calc.models.pet import PETConfig

NAMED = {
    "featurizer_type": ("feedforward", "residual"),
    "transformer_type": ("PreLN", "PostLN"),
    "normalization": ("RMSNorm", "LayerNorm"),
    "activation": ("GLU", "SiLU"),
    "cutoff_function": ("Bump", "Cosine"),
    "d_node": (16, 24),
}
ADAPTIVE = {
    "fixed": {},
    "solver": {"num_neighbors_adaptive": 6.0, "cutoff_width_adaptive": 1.0},
    "grid": {
        "num_neighbors_adaptive": 6.0,
        "adaptive_cutoff_method": "grid",
        "cutoff_width_adaptive": 0.8,
    },
}
COMBINATIONS = [
    dict(zip(NAMED, values, strict=True)) for values in itertools.product(*NAMED.values())
]
HEADS = {
    "energy_heads": ("energy", "energy/other"),
    "energy_head": "energy/other",
    "direct_forces": True,
    "direct_stress": True,
}
# Between them every option meets every kind of structure. The ends of the cosine, where its second
# derivative jumps, lie in gaps between the distances of the dense structure.
COVERING: dict[str, dict[str, object]] = {
    "first-public": {
        "featurizer_type": "residual", "transformer_type": "PostLN", "normalization": "LayerNorm",
        "activation": "SiLU", "cutoff_function": "Cosine", "d_node": 16,
        "cutoff": 3.76, "cutoff_width": 0.765,
    },
    "solver": {**ADAPTIVE["solver"]},
    "solver-residual": {
        **ADAPTIVE["solver"], "featurizer_type": "residual", "transformer_type": "PostLN",
        "d_node": 16,
    },
    "grid": {**ADAPTIVE["grid"], "normalization": "LayerNorm", "activation": "SiLU"},
    "grid-cosine": {
        **ADAPTIVE["grid"], "featurizer_type": "residual", "cutoff_function": "Cosine",
        "d_node": 16,
    },
    "post-norm": {"transformer_type": "PostLN", "attention_temperature": 0.7, **HEADS},
    "zbl": {"zbl": True, "normalization": "LayerNorm", "featurizer_type": "residual"},
    "zbl-solver": {"zbl": True, **ADAPTIVE["solver"], "activation": "SiLU"},
    "conditioned": {"system_conditioning": True, "d_node": 16},
    "conditioned-residual": {
        "system_conditioning": True, "featurizer_type": "residual", **HEADS,
        "transformer_type": "PostLN", "activation": "SiLU",
    },
}  # fmt: skip


def cases(checks: dict[str, object]) -> list[tuple[str, str]]:
    return [
        (check, structure)
        for check in checks
        for structure in (PERIODIC if check in PERIODIC_CHECKS else STRUCTURES)
    ]


@pytest.mark.parametrize("options", COVERING)
@pytest.mark.parametrize(("check", "structure"), cases(CHECKS | PERIODIC_CHECKS))
def test_contract(check: str, structure: str, options: str) -> None:
    model = random_pet(31, **COVERING[options])
    (CHECKS | PERIODIC_CHECKS)[check](Potential(model), STRUCTURES[structure]())


@pytest.mark.parametrize("adaptive", ADAPTIVE)
@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_combination_evaluates_saves_and_loads(
    tmp_path: Path, options: dict[str, object], adaptive: str
) -> None:
    model = random_pet(21, torch.float32, **options, **ADAPTIVE[adaptive])
    found = Potential(model)(STRUCTURES["left-handed-4"]())
    for values in (found.energy, found.forces, found.stress):
        assert values is not None
        assert bool(torch.isfinite(values).all())
    assert found.forces is not None
    assert found.forces.abs().max() > 1e-3
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    again = Potential(loaded)(STRUCTURES["left-handed-4"]())
    assert torch.equal(again.energy, found.energy)
    assert again.forces is not None
    assert torch.equal(again.forces, found.forces)


@pytest.mark.parametrize("options", COVERING)
def test_rare_options_save_and_load(tmp_path: Path, options: str) -> None:
    model = random_pet(22, torch.float32, **COVERING[options])
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_every_option_changes_the_energy() -> None:
    """Positive control of the above: no option is read and then forgotten."""
    structure = STRUCTURES["dense-random-12"]()

    def energy(**options: object) -> float:
        torch.manual_seed(0)
        return Potential(random_pet(23, **options))(structure).energy.item()

    with torch.random.fork_rng(devices=[]):
        plain = energy()
        for name, (_, other) in NAMED.items():
            changed = energy(**{name: 16 if name == "d_node" else other})
            assert abs(changed - plain) > 1e-6, name
        for options in (ADAPTIVE["solver"], ADAPTIVE["grid"], {"zbl": True}, HEADS):
            assert abs(energy(**options) - plain) > 1e-6, options


def test_older_configurations_mean_what_they_meant() -> None:
    """A configuration written before the options existed is the default architecture."""
    older = {
        "elements": [1, 8], "cutoff": 4.5, "cutoff_width": 0.5, "d_pet": 128, "d_node": 256,
        "d_head": 128, "d_feedforward": 256, "num_heads": 8, "num_attention_layers": 2,
        "num_gnn_layers": 2, "attention_temperature": 1.0, "input_encoding": "cartesian",
        "num_radial": 48,
    }  # fmt: skip
    assert PETConfig.from_dict(older) == PETConfig(elements=(1, 8))
    names = set(random_pet(1).state_dict())
    assert not any(n.startswith(("heads", "layer_heads", "conditioning", "zbl")) for n in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"featurizer_type": "graph"}, "`featurizer_type` must be 'feedforward' or 'residual'"),
        ({"activation": "SwiGLU"}, "`activation` must be 'GLU' or 'SiLU', got 'SwiGLU'"),
        ({"num_neighbors_adaptive": 0}, "`num_neighbors_adaptive` must be positive"),
        ({"cutoff_width_adaptive": -1.0}, "`cutoff_width_adaptive` must be positive"),
        ({"energy_heads": ()}, "`energy_heads` must be unique names"),
        ({"energy_heads": ("a", "a")}, "`energy_heads` must be unique names"),
        ({"energy_heads": ("a.b",)}, "`energy_heads` must be names without dots"),
        ({"energy_head": "other"}, r"`energy_head` must be one of \['energy'\], got 'other'"),
        ({"max_charge": 0}, "`max_charge` must be at least 1"),
    ],
)
def test_bad_option_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pet_config(**change)
