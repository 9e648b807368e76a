"""Checkpoints of the public Crystalformer code become model folders."""

import json
from argparse import Namespace

import pytest
import torch
from models.published_crystalformer import crystal, golden, public_state
from typer.testing import CliRunner

from pet_calc.cli import app
from pet_calc.errors import CheckpointError
from pet_calc.io.foreign.detection import convert_foreign, find_foreign
from pet_calc.io.models.weights import load_model

HYPER = {
    "domain": "real", "head_num": 8, "scale_real": [1.4], "scale_reci": [2.2],
    "positive_func": "elu=0.1", "gauss_lb_real": 0.5, "gauss_lb_reci": 0.5,
    "value_pe_dist_max": -10.0, "pooling": "avr", "pre_pooling_op": "no",
    "targets": "e_form", "exclude_self": False,
}  # fmt: skip


@pytest.fixture
def reference(reference_dir):
    return golden(reference_dir / "crystal")


@pytest.fixture
def public(reference_dir, reference):
    """State of the public model, with scales as its training froze them."""
    return public_state(reference_dir / "crystal", "default", reference["default"]["gauss_scale"])


def write(path, public, *, averaged=True, hyper=HYPER, **more):
    """A checkpoint as Lightning writes it, with objects of classes unknown here."""
    plain = {f"model.{name}": t + (1e-2 if averaged else 0) for name, t in public.items()}
    swa = {f"swa_model.module.{name}": t for name, t in public.items()} if averaged else {}
    scale = {"target_std": torch.tensor([0.5]), "target_mean": torch.tensor([-1.25])}
    if averaged:
        swa["swa_model.n_averaged"] = torch.tensor(7)
    torch.save(
        {"state_dict": plain | swa | scale, "hyper_parameters": hyper, "epoch": 3,
         "callbacks": Namespace(best=1), **more},
        path,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("averaged", [True, False])
def test_outputs_survive_the_import(tmp_path, public, reference, averaged):
    path = write(tmp_path / "e_form.ckpt", public, averaged=averaged)
    found = convert_foreign(find_foreign(path), tmp_path / "model")
    assert "Crystalformer for e_form" in found[0]
    model = load_model(tmp_path / "model", torch.float64)
    for name, output in reference["default"]["output"].items():
        predicted = model.properties(crystal(reference["crystals"][name])).item()
        assert predicted == pytest.approx(0.5 * output - 1.25, abs=1e-12)
    source = json.loads((tmp_path / "model/config.json").read_text())["training"]
    assert ("averaged" in source["imported_from"]["weights"]) == averaged


def test_by_the_command_line(tmp_path, public):
    path = write(tmp_path / "gap.ckpt", public)
    result = CliRunner().invoke(app, ["models", "import", str(path), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "no potential" in result.output
    assert load_model(tmp_path / "gap").config.targets == ("e_form",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "pooling = 'avr'"),
        ({"positive_func": "abs"}, "elu"),
        ({"gauss_lb_reci": 0.4}, "equal"),
        ({"scale_real": [1.4, 2.0]}, "the same in all layers"),
        ({"domain": "no"}, "domain"),
    ],
)
def test_unsupported_variants_are_refused(tmp_path, public, change, message):
    path = write(tmp_path / "model.ckpt", public, hyper=HYPER | change)
    with pytest.raises(CheckpointError, match=message):
        convert_foreign(find_foreign(path), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_unfrozen_widths_are_refused(tmp_path, public):
    public["encoder.layers.1.self_attn.gauss_scale"] = torch.zeros(2)
    path = write(tmp_path / "model.ckpt", public)
    with pytest.raises(CheckpointError, match="frozen"):
        convert_foreign(find_foreign(path), tmp_path / "model")


@pytest.mark.parametrize("missing", ["mlp.3.weight", "encoder.layers.3.linear1.bias"])
def test_missing_tensors_are_named(tmp_path, public, missing):
    del public[missing]
    path = write(tmp_path / "model.ckpt", public)
    with pytest.raises(CheckpointError, match=missing.replace(".", r"\.")):
        convert_foreign(find_foreign(path), tmp_path / "model")
