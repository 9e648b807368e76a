"""Models in the forms of other packages: recognized, converted without loss, evaluated alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from pet_calc import PETCalculator
from pet_calc.cli.models import models_app
from pet_calc.errors import CheckpointError, IntegrityError, PotentialNotFoundError
from pet_calc.io.foreign.calc_folder import load_calc_folder
from pet_calc.io.foreign.checkpoints import convert_checkpoint, load_published, read_published
from pet_calc.io.foreign.detection import convert_foreign, find_foreign, load_auxiliary
from pet_calc.io.models.files import WEIGHTS
from pet_calc.io.models.weights import copy_model, exact_dtype, load_model, read_config
from pet_calc.models.pet.published.checkpoints import ImportedPET
from pet_calc.models.pet.published.kokkos import import_kokkos
from pet_calc.models.pet.published.original import OriginalPET

from .published_files import checkpoint_bytes, description_of, upstream_state, write_kokkos

MODELS = ("pet_legacy", "pet_modern", "pet_adaptive_solver", "pet_adaptive_grid")
ORIGINALS = ("pet_main", "pet_preln", "pet_aux")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def structures(reference_dir) -> dict[str, ase.Atoms]:
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    return {atoms.info["name"]: atoms for atoms in frames}


@pytest.fixture
def imported(reference_dir) -> ImportedPET:
    return read_published(reference_dir / "pet" / "pet_modern.ckpt")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(models_app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


def small_ones(structures, model) -> list[ase.Atoms]:
    covered = set(model.atomic_numbers)
    found = [a for a in structures.values() if set(a.numbers) <= covered and len(a) < 60]
    assert found
    return found


@pytest.mark.parametrize("name", MODELS)
def test_form_of_pet_kokkos_gives_the_energies_of_the_checkpoint(
    reference_dir, structures, tmp_path, name
) -> None:
    checkpoint = reference_dir / "pet" / f"{name}.ckpt"
    files = write_kokkos(read_published(checkpoint), tmp_path / "v1.6" / "model-v1.6")
    reference = PETCalculator(load_published(checkpoint, torch.float64))
    for path in (*files, files[0].parent):
        calculator = PETCalculator(path, dtype="float64")
        for atoms in small_ones(structures, reference.potential.model):
            found, expected = calculator.evaluate(atoms), reference.evaluate(atoms)
            assert abs(found["energy"] - expected["energy"]) <= 1e-12
            assert np.abs(found["forces"] - expected["forces"]).max() <= 1e-12


def test_parity_notices_a_small_change(imported, reference_dir, structures) -> None:
    """Positive control of the tolerance above."""
    reference = PETCalculator(load_published(reference_dir / "pet/pet_modern.ckpt", torch.float64))
    description = description_of(imported)
    description["energy_scale"] *= 1 + 1e-11
    state = import_kokkos(description, upstream_state(imported)).state
    changed = copy_model(reference.potential.model, torch.float64)
    changed.load_state_dict(state)
    atoms = small_ones(structures, changed)[0]
    found = PETCalculator(changed).evaluate(atoms)["energy"]
    assert abs(found - reference.evaluate(atoms)["energy"]) > 1e-12


def test_import_of_the_form_of_pet_kokkos(imported, tmp_path) -> None:
    files = write_kokkos(imported, tmp_path / "small")
    text = run("import", files[1], "--name", "mine", "--out", tmp_path)
    assert "in the form of a pet-kokkos" in text
    model = load_model(tmp_path / "mine", torch.float64)
    for name, tensor in imported.state.items():
        assert torch.equal(model.state_dict()[name], tensor.to(model.state_dict()[name].dtype))
    origin = read_config(tmp_path / "mine")["training"]["imported_from"]
    assert sorted(origin["files"]) == ["small.json", "small.safetensors"]


def test_species_in_another_order_are_sorted(imported) -> None:
    description, tensors = description_of(imported), upstream_state(imported)
    elements = imported.config.elements
    n = len(elements)
    for k, z in enumerate(elements):
        description["species_to_index"][z] = n - 1 - k
    description["composition_energies"].reverse()
    reordered = {
        name: t.flip(0) if "embedder" in name and t.dim() == 2 and len(t) == n else t
        for name, t in tensors.items()
    }
    found = import_kokkos(description, reordered).state
    for name, tensor in imported.state.items():
        assert torch.equal(found[name], tensor), name


def test_older_descriptions_get_the_defaults_of_their_time(imported) -> None:
    description = description_of(imported)
    for name in ("adaptive_cutoff_method", "cutoff_width_adaptive", "zbl", "max_charge"):
        del description["hypers"][name]
    description["hypers"]["num_neighbors_adaptive"] = 12.0
    config = import_kokkos(description, upstream_state(imported)).config
    assert config.adaptive_cutoff_method == "grid"
    assert config.cutoff_width_adaptive == config.cutoff_width


BAD = {
    "another format": ({"format_version": 2}, {}, "must be of format 1"),
    "zbl": ({}, {"zbl": True}, "ZBL"),
    "long range": ({}, {"long_range_enabled": True}, "long-range"),
    "unit of length": ({"length_unit": "nm"}, {}, "angstrom, got 'nm'"),
    "unit of energy": ({"energy_unit": "K"}, {}, "must be in one of"),
    "references": ({"composition_energies": []}, {}, "not in order: IndexError"),
    "activation": ({}, {"activation": "ReLU"}, "not in order: ValueError"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_the_form_cannot_say_is_refused(imported, case) -> None:
    values, hypers, message = BAD[case]
    description = description_of(imported) | values
    description["hypers"] |= hypers
    with pytest.raises(CheckpointError, match=message):
        import_kokkos(description, upstream_state(imported))


def test_damaged_files_are_named(imported, tmp_path) -> None:
    description, tensors = write_kokkos(imported, tmp_path / "a")
    whole = tensors.read_bytes()
    state = safetensors.torch.load(whole)
    state.popitem()
    safetensors.torch.save_file(state, tensors)
    with pytest.raises(CheckpointError, match=r"a\.safetensors.* is missing"):
        PETCalculator(tensors)
    tensors.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a readable"):
        PETCalculator(tensors)
    description.write_text("{")
    with pytest.raises(CheckpointError, match=r"a\.json is not valid JSON"):
        PETCalculator(tensors)
    tensors.unlink()
    with pytest.raises(PotentialNotFoundError, match=r"no .*a\.safetensors"):
        PETCalculator(description)


def test_a_folder_of_several_models_is_refused(imported, tmp_path) -> None:
    for name in ("a", "b"):
        write_kokkos(imported, tmp_path / "models" / name)
    with pytest.raises(PotentialNotFoundError, match=r"holds 2 models \(a, b\)"):
        PETCalculator(tmp_path / "models")


@pytest.mark.parametrize("name", ORIGINALS)
def test_calculation_folder_gives_the_numbers_of_the_original_code(
    reference_dir, structures, tmp_path, name
) -> None:
    folder = reference_dir / "pet_original" / name
    text = run("import", folder, "--out", tmp_path)
    assert "the first public PET for" in text
    calculators = [PETCalculator(p, dtype="float64") for p in (folder, tmp_path / name)]
    checked = 0
    with np.load(folder.parent / "pet.f64.results.npz") as golden:
        for key in golden.files:
            model, structure, quantity = key.split("/")
            if model != name or quantity != "energy":
                continue
            for calculator in calculators:
                atoms = structures[structure].copy()
                atoms.calc = calculator
                assert abs(atoms.get_potential_energy() - golden[key].item()) < 1e-9
                forces = golden[f"{name}/{structure}/forces"]
                assert np.abs(atoms.get_forces() - forces).max() < 1e-10
            checked += 1
    assert checked == 3


def test_first_public_pet_is_kept_without_loss(reference_dir, tmp_path) -> None:
    folder = reference_dir / "pet_original" / "pet_main"
    original = load_calc_folder(folder, torch.float64)
    foreign = find_foreign(folder)
    assert foreign is not None
    convert_foreign(foreign, tmp_path)
    assert read_config(tmp_path)["architecture"] == "pet-original"
    kept = load_model(tmp_path, torch.float64)
    assert isinstance(kept, OriginalPET)
    assert kept.config == original.config
    assert not any(p.requires_grad for p in kept.parameters())
    for name, tensor in original.state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor)
    # its weights are in float64; float32 would round them
    assert read_config(tmp_path)["dtype"] == "float64"
    single = copy_model(original, torch.float32)
    assert torch.equal(single.reference_energies, original.reference_energies)
    assert exact_dtype(copy_model(single, torch.float64)) == torch.float32


def test_checkpoints_in_float64_are_kept_without_loss(reference_dir, tmp_path) -> None:
    imported = read_published(reference_dir / "pet" / "pet_modern.ckpt")
    noise = torch.Generator().manual_seed(0)
    state = {
        n: t.double() * (1 + 1e-9 * torch.rand(t.shape, generator=noise, dtype=torch.float64))
        for n, t in imported.state.items()
    }
    exact = ImportedPET(imported.config, state, 16, (), {})
    path = tmp_path / "double.ckpt"
    path.write_bytes(checkpoint_bytes(exact))
    convert_checkpoint(path, tmp_path / "double")
    kept = load_model(tmp_path / "double", torch.float64).state_dict()
    stored = read_published(path).state
    assert all(torch.equal(kept[name], tensor.to(kept[name])) for name, tensor in stored.items())
    assert any(not torch.equal(t.float().double(), t) for t in stored.values())
    convert_checkpoint(reference_dir / "pet" / "pet_modern.ckpt", tmp_path / "single")
    assert read_config(tmp_path / "single")["dtype"] == "float32"


def test_auxiliary_model_is_kept_beside_the_main_one(reference_dir, structures, tmp_path) -> None:
    folder = reference_dir / "pet_original"
    text = run("import", folder / "pet_main", "--out", tmp_path, "--auxiliary", folder / "pet_aux")
    assert text.endswith("with its auxiliary model")
    auxiliary = load_auxiliary(tmp_path / "pet_main", torch.float64)
    expected = load_calc_folder(folder / "pet_aux", torch.float64)
    assert auxiliary is not None
    calculator = PETCalculator(tmp_path / "pet_main" / "auxiliary", dtype="float64")
    for atoms in small_ones(structures, expected):
        found = calculator.evaluate(atoms)
        with np.load(folder / "pet.f64.results.npz") as golden:
            key = f"pet_aux/{atoms.info['name']}/energy"
            if key in golden.files:
                assert abs(found["energy"] - golden[key].item()) < 1e-9
    assert auxiliary.config.geometry == "length"

    data = (tmp_path / "pet_main" / "auxiliary" / WEIGHTS).read_bytes()
    (tmp_path / "pet_main" / "auxiliary" / WEIGHTS).write_bytes(data[:-1] + b"\x7f")
    with pytest.raises(IntegrityError):
        load_auxiliary(tmp_path / "pet_main")


def test_a_model_without_an_auxiliary_one(reference_dir, tmp_path) -> None:
    folder = reference_dir / "pet_original"
    run("import", folder / "pet_main", "--out", tmp_path)
    assert load_auxiliary(tmp_path / "pet_main") is None
    with pytest.raises(CheckpointError, match="must see lengths alone"):
        run("import", folder / "pet_main", "--out", tmp_path, "--auxiliary", folder / "pet_main")


def test_auxiliary_model_of_other_elements_is_refused(reference_dir, tmp_path) -> None:
    folder = reference_dir / "pet_original"
    other = tmp_path / "other"
    shutil.copytree(folder / "pet_aux", other)
    other.chmod(0o755)
    options = other / "hypers_used.yaml"
    options.chmod(0o644)
    text = options.read_text()
    assert "R_CUT: " in text
    lines = ["  R_CUT: 4.0" if "R_CUT:" in line else line for line in text.splitlines()]
    options.write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match="must have the main model's cutoff"):
        run("import", folder / "pet_main", "--out", tmp_path, "--auxiliary", other)


def test_options_of_the_first_public_pet_are_checked(reference_dir, tmp_path) -> None:
    run("import", reference_dir / "pet_original" / "pet_main", "--out", tmp_path)
    path = tmp_path / "pet_main" / "config.json"
    values = json.loads(path.read_text())
    for name, value in (("geometry", "angle"), ("num_heads", 5), ("color", 1), ("elements", [])):
        path.write_text(json.dumps(values | {"config": values["config"] | {name: value}}))
        with pytest.raises(CheckpointError, match="does not describe"):
            load_model(tmp_path / "pet_main")


def test_what_is_no_model_is_refused(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="must be a checkpoint"):
        run("import", tmp_path / "empty")
    with pytest.raises(PotentialNotFoundError, match="none at"):
        run("import", tmp_path / "absent")


def test_single_numbers_of_the_first_public_pet_are_close_in_float32(
    reference_dir, structures
) -> None:
    folder = reference_dir / "pet_original" / "pet_main"
    exact, single = (PETCalculator(folder, dtype=d) for d in ("float64", "float32"))
    for atoms in small_ones(structures, exact.potential.model):
        a, b = (evaluate_energy(c, atoms) for c in (exact, single))
        assert 0 < abs(a - b) < 1e-5 * len(atoms)


def evaluate_energy(calculator: PETCalculator, atoms: ase.Atoms) -> float:
    energy: float = calculator.evaluate(atoms)["energy"]
    return energy
