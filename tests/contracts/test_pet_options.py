"""Every option of PET: all combinations work, and a covering set obeys every contract."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from contracts.energy_model import CHECKS, PERIODIC_CHECKS, Potential
from contracts.models import pet_config, random_pet
from contracts.structures import PERIODIC, STRUCTURES

from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models import evaluate
from pet_calc.models.pet import PETConfig
from pet_calc.training.potentials.config import (
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from pet_calc.training.potentials.loop import Run, prepare_all

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


# what any of the above may be combined with
EXTRAS: dict[str, dict[str, object]] = {
    "conditioning": {"system_conditioning": True, "max_charge": 2, "max_spin_multiplicity": 3},
    "variants": {"energy_heads": ("energy", "energy/other"), "energy_head": "energy/other"},
    "direct": {"direct_forces": True, "direct_stress": True},
    "zbl": {"zbl": True},
    "temperature": {"attention_temperature": 0.6},
    "radial": {"input_encoding": "radial"},
}
SUBSETS = [
    tuple(name for k, name in enumerate(EXTRAS) if code >> k & 1)
    for code in range(2 ** len(EXTRAS))
]
PLAN = [
    (options, adaptive, SUBSETS[(37 * k + 11 * (k // len(SUBSETS))) % len(SUBSETS)])
    for k, (options, adaptive) in enumerate(itertools.product(COMBINATIONS, ADAPTIVE))
]


def test_plan_meets_every_pair_of_options() -> None:
    """All of the main options with each other; each of them with each extra, on and off."""
    assert len({(*o.values(), a) for o, a, _ in PLAN}) == len(PLAN) == 2**6 * 3
    assert {extras for *_, extras in PLAN} == set(SUBSETS)
    for extra in EXTRAS:
        for present in (True, False):
            meeting = [(o, a) for o, a, extras in PLAN if (extra in extras) == present]
            assert {a for _, a in meeting} == set(ADAPTIVE)
            for name, values in NAMED.items():
                assert {o[name] for o, _ in meeting} == set(values)


def labeled_frames() -> list[LabeledFrame]:
    """Two structures with labels of no meaning, of different charge and spin."""
    generator = np.random.default_rng(0)
    frames = []
    for k in range(2):
        atoms = Atoms(
            "OHHSi", cell=[3.4, 3.6, 3.8], pbc=True, info={"charge": k, "spin": k + 1},
            positions=[[0, 0, 0], [0.9, 0.1, 0], [0, 1.0, 0.2], [1.7, 1.6, 1.8]]
            + 0.05 * generator.standard_normal((4, 3)),
        )  # fmt: skip
        labels = generator.standard_normal((4, 3)), 0.01 * generator.standard_normal(6)
        frames.append(LabeledFrame(atoms, -20.0 + k, *labels))
    return frames


@pytest.mark.parametrize(
    ("options", "adaptive", "extras"),
    PLAN,
    ids=lambda x: (
        "-".join(map(str, x.values() if isinstance(x, dict) else x)) or "plain"
        if not isinstance(x, str)
        else x
    ),
)
def test_combination_trains_saves_and_loads(
    tmp_path: Path, options: dict[str, object], adaptive: str, extras: tuple[str, ...]
) -> None:
    choices = options | ADAPTIVE[adaptive]
    for extra in extras:
        choices |= EXTRAS[extra]
    config = TrainConfig(
        name="two-steps",
        model=pet_config(**choices, num_attention_layers=1),
        data=DataConfig(train=("none",)),
        stages=(StageConfig(2, batch_size=2, warmup_steps=1, loss=LossConfig(1.0, 1.0, 1.0)),),
        optimizer=OptimizerConfig(ema_decay=0.0),
    )
    labeled = labeled_frames()
    frames = prepare_all(labeled, config)
    run = Run.start(config, labeled, frames)
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    losses = [run.advance(frames)[0] for _ in range(2)]
    assert all(np.isfinite(losses))
    moved = {n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])}
    # the main head beside a variant in use is the only part that stays
    idle = {n for n in before if n.startswith(("node_head", "edge_head", "layer_heads"))}
    expected = before.keys() - (idle if "variants" in extras else set())
    assert unmoved(expected - moved) == set()

    model = run.best_model()
    assert model.config == config.model
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.config == config.model
    for frame in frames:
        found, again = (evaluate(m, frame.system, frame.edges) for m in (model, loaded))
        for name in ("energy", "forces", "stress"):
            assert bool(torch.isfinite(getattr(found, name)).all()), name
            assert torch.equal(getattr(again, name), getattr(found, name)), name


def unmoved(names: set[str]) -> set[str]:
    """Parameters without a reason to stay.

    Embeddings of what the frames do not hold have one, and what is added to the direct forces of
    all atoms alike, as their mean is taken off.
    """
    of_all = re.compile(r"heads\.direct_forces\.\d+\.node\.4\.bias")
    return {n for n in names if not ("embed" in n and "weight" in n) and not of_all.fullmatch(n)}


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
