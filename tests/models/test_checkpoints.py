"""Reading checkpoints: nothing in them is executed, and what they say is understood."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from pet_calc.cli.import_checkpoint import import_model
from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.foreign.checkpoints import convert_checkpoint, load_published, read_published
from pet_calc.io.models.weights import load_model
from pet_calc.models.pet.published.checkpoints import import_checkpoint
from pet_calc.models.pet.published.migrations import NEWEST, PublishedModel, Target, migrate
from pet_calc.models.unpickling import Stub, read_checkpoint


def archive(content: bytes) -> bytes:
    """A file as torch.save would write it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("model/data.pkl", content)
        file.writestr("model/version", "3\n")
    return buffer.getvalue()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


class Remembered:
    """A class that a reader does not know."""

    def __init__(self) -> None:
        self.length_unit = "angstrom"


# --- hostile files -----------------------------------------------------------------------------


def hostile_calls(victim: Path) -> dict[str, object]:
    command = f"touch {victim}"
    code = f"import os; os.system({command!r})"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, f"__import__('os').system({command!r})"),
        "exec": Calls(exec, code),
        "open": Calls(open, str(victim), "w"),
        "getattr": Calls(getattr, os, "system"),
        "import": Calls(__import__, "os"),
    }


@pytest.mark.parametrize("kind", hostile_calls(Path("victim")))
@pytest.mark.parametrize("depth", ["top", "entry", "within"])
def test_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, kind: str, depth: str) -> None:
    victim = tmp_path / "victim"
    call = hostile_calls(victim)[kind] if kind != "getattr" else hostile_getattr(victim)
    content: Any = {"architecture_name": "pet", "epoch": call}
    if depth == "top":
        content = call
    if depth == "within":
        content = {"architecture_name": "pet", "model_data": {"x": [1, (call, 2)]}}
    data = archive(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match=r"data only.*asks for .*nothing was executed"):
        read_checkpoint(data)
    with pytest.raises(CheckpointError):
        import_checkpoint(data)
    assert not victim.exists()


def hostile_getattr(victim: Path) -> object:
    return Calls(getattr, "text", f"{victim}")


def test_the_same_pickles_do_run_when_unpickled(tmp_path: Path) -> None:
    """Positive control: the files above are dangerous."""
    victim = tmp_path / "victim"
    pickle.loads(pickle.dumps(hostile_calls(victim)["os.system"], protocol=2))
    assert victim.exists()


def test_unknown_classes_become_stubs_and_their_calls_nothing() -> None:
    value = read_checkpoint(
        archive(
            pickle.dumps(
                {
                    "info": Remembered(),
                    "called": Calls(zipfile.is_zipfile, "x"),
                    "order": collections.OrderedDict(a=1),
                    "set": {1, 2},
                },
                protocol=2,
            )
        )
    )
    assert isinstance(value["info"], Stub)
    assert value["info"].attribute("length_unit") == "angstrom"
    assert isinstance(value["called"], Stub)
    assert value["order"] == {"a": 1}
    assert value["set"] == {1, 2}


def test_tensors_are_those_that_were_saved() -> None:
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    tensors = {
        "whole": base,
        "part": base[1:3, ::2],
        "turned": base.T,
        "integers": torch.arange(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    found = read_checkpoint(saved(tensors))
    for name, expected in tensors.items():
        assert torch.equal(found[name], expected), name
        assert found[name].dtype == expected.dtype


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a zip archive"),
        (b"not a checkpoint", "must be a zip archive"),
        (b"\x1f\x8bdamaged", "cannot be read"),
        (archive(b"garbage"), "cannot be read"),
        (archive(pickle.dumps([1, 2])), "must hold a dictionary, got list"),
        (archive(pickle.dumps({"a": 1})[:-4]), "cannot be read"),
    ],
)
def test_damaged_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(content)


def test_tensor_larger_than_its_storage_is_refused() -> None:
    with pytest.raises(CheckpointError, match="must be stored in full"):
        read_checkpoint(saved({"x": torch.ones(1).expand(10**9)}))


# --- other files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({}, "must be of the architecture 'pet', got None"),
        ({"architecture_name": "soap_bpnn"}, "got 'soap_bpnn'"),
        ({"architecture_name": "llpr"}, "must hold the model that it wraps"),
        ({"architecture_name": "pet"}, "must hold `model_data`"),
        ({"architecture_name": "pet", "model_data": {}}, "must hold `model_hypers`"),
    ],
)
def test_other_content_is_refused(checkpoint: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(saved(checkpoint))


def published(**changes: Any) -> PublishedModel:
    plain = PublishedModel(
        version=1,
        hypers={"d_pet": 4, "cutoff_width": 0.2},
        atomic_types=(1, 8),
        targets={"energy": Target("energy", "eV", True), "other": Target("energy", "eV", True)},
        state={},
        last_state={},
    )
    return replace(plain, **changes)


def test_oldest_files_have_the_first_architecture() -> None:
    hypers = migrate(published()).hypers
    assert hypers["featurizer_type"] == "residual"
    assert hypers["transformer_type"] == "PostLN"
    assert hypers["normalization"] == "LayerNorm"
    assert hypers["activation"] == "SiLU"
    assert hypers["d_node"] == 4
    assert hypers["cutoff_function"] == "Cosine"
    assert hypers["adaptive_cutoff_method"] == "grid"
    assert hypers["cutoff_width_adaptive"] == 0.2


def test_what_a_file_says_wins_over_what_a_step_assumes() -> None:
    hypers = {"d_pet": 4, "cutoff_width": 0.2, "cutoff_function": "Bump", "d_node": 16}
    found = migrate(published(hypers=hypers)).hypers
    assert found["cutoff_function"] == "Bump"
    assert found["d_node"] == 16


def test_padding_rows_are_dropped_once() -> None:
    embeddings = {
        "embedding.weight": torch.arange(3.0)[:, None],
        "gnn_layers.0.node_embedder.weight": torch.arange(3.0)[:, None],
        "gnn_layers.1.neighbor_embedder.weight": torch.arange(3.0)[:, None],
        "gnn_layers.0.edge_embedder.weight": torch.ones(1, 4),
        "gnn_layers.0.trans.layers.0.mlp.3.bias": torch.ones(2),
        "scaler.scales": torch.tensor([2.0, 3.0]),
    }
    state = migrate(published(state=embeddings)).state
    for name in (
        "backend.edge_embedder.weight",
        "backend.node_embedders.0.weight",
        "backend.gnn_layers.1.neighbor_embedder.weight",
    ):
        assert state[name].flatten().tolist() == [0, 1], name
    assert state["backend.gnn_layers.0.edge_embedder.weight"].shape == (1, 4)
    assert "backend.gnn_layers.0.trans.layers.0.mlp.w_out.bias" in state
    assert state["scaler.energy_scale"].item() == 2
    assert state["scaler.other_scale"].item() == 3


def test_large_models_of_version_seven() -> None:
    embeddings = {
        "embedding.weight": torch.zeros(3, 4),
        "node_embedding.weight": torch.zeros(3, 16),
        "gnn_layers.1.neighbor_embedder.weight": torch.zeros(3, 4),
        "gnn_layers.0.edge_embedder.weight": torch.zeros(4, 4),
        "combination_rmsnorms.0.weight": torch.zeros(8),
    }
    model = migrate(published(version=7, last_state=embeddings))
    assert (model.hypers["d_node"], model.hypers["d_feedforward"]) == (16, 8)
    assert model.hypers["transformer_type"] == "PreLN"
    assert {n: tuple(t.shape) for n, t in model.state.items()} == {
        "backend.edge_embedder.weight": (2, 4),
        "backend.node_embedders.0.weight": (2, 16),
        "backend.gnn_layers.1.neighbor_embedder.weight": (2, 4),
        "backend.gnn_layers.0.edge_embedder.weight": (4, 4),
        "backend.combination_norms.0.weight": (8,),
    }


def test_migration_leaves_its_argument_alone() -> None:
    model = published(state={"embedding.weight": torch.zeros(3, 4)})
    migrate(model)
    assert model.version == 1
    assert list(model.state) == ["embedding.weight"]
    assert set(model.hypers) == {"d_pet", "cutoff_width"}


@pytest.mark.parametrize("version", [0, NEWEST + 1])
def test_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(CheckpointError, match=f"format version {version}, but versions 1 to"):
        migrate(published(version=version))


# --- conversion --------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PotentialNotFoundError, match=r"there is none at .*absent\.ckpt"):
        read_published(tmp_path / "absent.ckpt")


def test_error_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.ckpt"
    file.write_bytes(saved({"architecture_name": "gap"}))
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: .* got 'gap'"):
        read_published(file)


@pytest.mark.parametrize("name", ["pet_legacy", "pet_adaptive_solver", "pet_nc_zbl"])
def test_converted_folder_holds_the_same_numbers(
    reference_dir: Path, tmp_path: Path, name: str
) -> None:
    file = reference_dir / "pet" / f"{name}.ckpt"
    convert_checkpoint(file, tmp_path / name)
    converted = load_model(tmp_path / name, torch.float64)
    direct = load_published(file, torch.float64)
    assert converted.config == direct.config
    for key, value in direct.state_dict().items():
        assert torch.equal(converted.state_dict()[key], value), key


def test_command_writes_a_model_folder(reference_dir: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("import")(import_model)
    file = reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt"
    result = CliRunner().invoke(app, [str(file), "--name", "small", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "format 16" in result.output
    assert load_model(tmp_path / "small").config.num_neighbors_adaptive == 12
    refused = CliRunner().invoke(app, [str(file), "--name", "a/b", "--out", str(tmp_path)])
    assert refused.exit_code == 2
