"""Models on disk: what is saved is what is loaded, and what does not fit is named."""

import json
import os
import re

import pytest
import safetensors.torch
import torch
from calculators.small_potentials import flip_a_bit, liquid, small_pet

from pet_calc.errors import CheckpointError, IntegrityError, OutputError, PotentialNotFoundError
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import copy_model, load_model, read_config, save_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate
from pet_calc.neighbors import neighbor_list


@pytest.fixture
def folder(tmp_path):
    """A saved model."""
    save_model(tmp_path / "model", small_pet(), training={"steps": 3})
    return tmp_path / "model"


def energy(model):
    system = system_from_atoms(liquid())
    edges = neighbor_list(system, model.cutoff)
    return evaluate(model, system, edges, forces=False, stress=False).energy.item()


def test_a_folder_records_what_made_it(folder):
    values = read_config(folder)
    assert (values["format"], values["architecture"], values["dtype"]) == (1, "pet", "float32")
    assert values["training"] == {"steps": 3}
    assert values["weights_sha256"] == sha256(folder / WEIGHTS)
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_float32_model_comes_back_bit_by_bit(folder, tmp_path):
    model = load_model(folder)
    save_model(tmp_path / "again", model)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert energy(load_model(tmp_path / "again")) == energy(model)


@pytest.mark.parametrize("dtype", ["float32", torch.float64])
def test_weights_are_float32_and_energies_of_reference_are_not_rounded(folder, dtype):
    original, model = small_pet(), load_model(folder, dtype)
    assert not torch.equal(
        original.reference_energies, original.reference_energies.float().double()
    )
    assert torch.equal(model.reference_energies, original.reference_energies)
    assert torch.equal(model.energy_scale, original.energy_scale)
    assert torch.equal(
        model.edge_embedder.weight.double(), original.edge_embedder.weight.float().double()
    )
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_copy_in_another_precision_rounds_weights_only():
    original = small_pet(dtype=torch.float32)
    copy = copy_model(original, torch.float64)
    assert copy.dtype == torch.float64
    assert torch.equal(copy.reference_energies, original.reference_energies)
    # the float64 grid of the radial encoding is not the float32 one with zeros behind it
    assert not torch.equal(copy.gaussian_centers, original.gaussian_centers.double())
    assert energy(copy) == pytest.approx(energy(original), abs=1e-3)
    assert all(p.requires_grad for p in original.parameters())


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    save_model(folder, load_model(folder))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PotentialNotFoundError, match=f"there is no .*{name}"):
        load_model(folder)


def test_damaged_weights_are_refused_with_both_digests(folder):
    recorded = sha256(folder / WEIGHTS)
    flip_a_bit(folder / WEIGHTS)
    found = sha256(folder / WEIGHTS)
    with pytest.raises(IntegrityError, match=f"SHA-256 {recorded}, but has {found}"):
        load_model(folder)


def test_another_config_is_refused_where_its_digest_is_known(folder):
    digest = sha256(folder / CONFIG)
    load_model(folder, expected_sha256={CONFIG: digest})
    edit(folder, lambda values: values["config"].update(cutoff=3.1))
    load_model(folder)
    with pytest.raises(IntegrityError, match=f"{CONFIG} must have the SHA-256 {digest}"):
        load_model(folder, expected_sha256={CONFIG: digest})


def edit(folder, change):
    values = json.loads((folder / CONFIG).read_text())
    change(values)
    (folder / CONFIG).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=2), "must be of format 1"),
        (lambda v: v.update(kind="property"), "kind 'potential', got .*'property'"),
        (lambda v: v.update(architecture="gap"), "must be of the architecture 'pet' or"),
        (
            lambda v: v.update(architecture="crystalformer"),
            "does not describe a model of its architecture",
        ),
        (lambda v: v.pop("config"), "under 'config'"),
        (lambda v: v.pop("weights_sha256"), "under 'weights_sha256'"),
        (lambda v: v["config"].update(color="red"), "unknown PET option.*color"),
        (lambda v: v["config"].pop("elements"), "does not describe a model of its architecture"),
        (lambda v: v["config"].update(d_head=9), r"edge_head.0.bias has shape \(8,\) instead of"),
        (lambda v: v["config"].update(num_attention_layers=2), "layers.1.* is missing"),
        (lambda v: v["config"].update(num_gnn_layers=1), "is unknown"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / CONFIG).write_text(content)
    with pytest.raises(CheckpointError, match="JSON"):
        load_model(folder)


def test_a_pickle_is_not_opened(folder):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(folder / "ran"),)

    torch.save(Hostile(), folder / WEIGHTS)
    edit(folder, lambda v: v.update(weights_sha256=sha256(folder / WEIGHTS)))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(folder)
    assert not (folder / "ran").exists()


def test_an_interrupted_save_leaves_the_old_model(folder, monkeypatch):
    before = (folder / WEIGHTS).read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"cannot be written \(no space left"):
        save_model(folder, small_pet(seed=1))
    assert (folder / WEIGHTS).read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]
    load_model(folder)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a folder"):
        save_model(tmp_path / "file" / "model", small_pet())


def test_half_a_replaced_model_is_noticed(folder, tmp_path):
    save_model(tmp_path / "other", small_pet(seed=1))
    os.replace(tmp_path / "other" / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(IntegrityError):
        load_model(folder)


@pytest.mark.parametrize("dtype", ["float16", "double", torch.bfloat16, None, 64])
def test_other_precisions_are_refused(folder, dtype):
    with pytest.raises(ValueError, match=re.escape(f"got {dtype!r}")):
        load_model(folder, dtype)


def test_stored_tensors_are_float32_but_for_the_energies(folder):
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    kept = {name for name, t in tensors.items() if t.dtype == torch.float64}
    assert kept == {"reference_energies", "energy_scale"}
