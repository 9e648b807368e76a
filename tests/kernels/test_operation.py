"""Which form of an operation computes: the one that is in force or named, the reference else."""

import importlib.util
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from pet_calc.kernels import operation as module
from pet_calc.kernels.cutoff_attention import cutoff_attention
from pet_calc.kernels.ecse_frames import (
    FrameConfig,
    framed_embedding,
    fused_views,
    pair_weights,
    pruned_weights,
    view_average,
)
from pet_calc.kernels.edge_embedding import Encoding, edge_embedding, fused_embedding
from pet_calc.kernels.fused_linear import fused_linear
from pet_calc.kernels.lattice_attention import lattice_attention
from pet_calc.kernels.neighbor_matrix import matrix_operation
from pet_calc.kernels.operation import (
    Selection,
    bound,
    discard,
    operation,
    reference_only,
    require_kernels,
    selecting,
    use,
    using_kernels,
)
from pet_calc.kernels.precision import matmul_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OPERATIONS = (
    cutoff_attention,
    edge_embedding,
    framed_embedding,
    fused_linear,
    lattice_attention,
    matrix_operation,
    pair_weights,
    pruned_weights,
    view_average,
)
X = torch.zeros(3)


def twice(x, power=1):
    return 2 * x**power


@pytest.fixture
def available(monkeypatch):
    """Triton kernels count as able to run on any device."""
    monkeypatch.setattr(module, "unavailable", lambda device: None)


@pytest.fixture
def example(monkeypatch, available):
    """An operation whose form in Triton kernels returns ones; at most four numbers."""
    fake = SimpleNamespace(fused=lambda x, power=1: torch.ones_like(x))
    monkeypatch.setitem(sys.modules, "fake_kernels", fake)

    def limit(x, power=1):
        return module.beyond(4, len(x), "numbers")

    return operation("doubling", "fake_kernels:fused", limit)(twice)


def test_nothing_is_accelerated_unless_asked_for(example, monkeypatch):
    monkeypatch.setenv("PET_CALC_TRITON", "1")
    assert torch.equal(example(X), X)
    assert not example.selected
    with using_kernels("reference") as selection:
        assert torch.equal(example(X), X)
    with reference_only():
        assert torch.equal(example(X), X)
    assert selection.used == {}


def test_kernels_in_force_are_used_where_they_apply(example, caplog):
    with using_kernels("triton") as selection:
        assert torch.equal(example(X), torch.ones(3))
        with matmul_precision("high"):
            example(X, power=2)
        assert selection.used == {"doubling in Triton": "high"}
        with caplog.at_level("DEBUG", logger="pet_calc"):
            assert torch.equal(example(torch.zeros(5)), torch.zeros(5))
            assert torch.equal(example(torch.zeros(3, dtype=torch.float16)).float(), X)
        # a block within has the last word
        with reference_only():
            assert torch.equal(example(X), X)
    assert "they take at most 4 numbers, not 5" in caplog.text
    assert "they take float32, not torch.float16" in caplog.text
    assert torch.equal(example(X), X)


def test_single_forms_are_excluded_or_allowed(example):
    name = example.name
    for selection, used in (
        (Selection("triton", excluded=frozenset({name})), False),
        (Selection("triton", allowed=frozenset()), False),
        (Selection("triton", allowed=frozenset({name})), True),
        (Selection("reference", allowed=frozenset({name})), False),
    ):
        with selecting(selection):
            assert bool((example(X) == 1).all()) is used
        assert (name in selection.used) is used


def test_forms_are_named_or_refused(example, monkeypatch):
    assert torch.equal(example.by("triton", X), torch.ones(3))
    assert torch.equal(example.by("reference", X), X)
    assert torch.equal(example.by("auto", X), X)
    with pytest.raises(ValueError, match="must be 'auto', 'reference' or 'triton', got 'cupy'"):
        example.by("cupy", X)
    with pytest.raises(ValueError, match="cannot be used: they take at most 4 numbers, not 5"):
        example.by("triton", torch.zeros(5))
    monkeypatch.undo()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"cannot be used: .*(not on cpu|not installed)"):
        example.by("triton", X)


def test_notes_are_made_and_taken_back():
    assert use("a form")
    with using_kernels("triton") as selection:
        assert use("a form")
        assert use("another")
        discard("a form")
    assert list(selection.used) == ["another"]
    with reference_only() as selection:
        assert not use("a form")
    assert selection.used == {}


def test_a_function_for_later_keeps_the_choices(example):
    found = []
    with using_kernels("triton") as selection, matmul_precision("high"):
        later = bound(lambda x: found.append(example(x)))
    for _ in range(2):  # also within itself, and in another thread
        bound(later)(X)
    thread = threading.Thread(target=later, args=(X,))
    thread.start()
    thread.join()
    assert all(torch.equal(x, torch.ones(3)) for x in found)
    assert len(found) == 3
    assert selection.used == {example.name: "high"}


def test_what_the_option_comes_to(monkeypatch):
    monkeypatch.delenv("PET_CALC_TRITON", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="must be 'auto', 'reference' or 'triton', got 'cuda'"):
        require_kernels("cuda", CPU)
    with pytest.raises(ValueError, match=r"'triton' cannot be used: .*(not on cpu|not installed)"):
        require_kernels("triton", CPU)
    assert require_kernels("auto", CUDA) == "reference"
    monkeypatch.setenv("PET_CALC_TRITON", "1")
    assert require_kernels("auto", CPU) == "reference"
    monkeypatch.setattr(module, "unavailable", lambda device: None)
    assert require_kernels("auto", CUDA) == "triton"
    assert require_kernels("triton", CUDA) == "triton"
    assert require_kernels("reference", CUDA) == "reference"


def test_no_kernel_of_the_package_is_on_by_default(monkeypatch, available):
    """Whatever the environment says, and wherever the kernels could run."""
    monkeypatch.setenv("PET_CALC_TRITON", "1")
    assert not any(x.selected for x in OPERATIONS)
    with using_kernels("triton"):
        assert all(x.selected for x in OPERATIONS)
        assert fused_embedding(X, 128)
        assert not fused_embedding(X, 129)
        assert fused_views(X, 256)
        assert not fused_views(X, 257)


def test_limits_of_the_kernels(available):
    frames = torch.zeros(3000, dtype=torch.int64)
    none = [X] * 6
    weight = torch.zeros(2, 3, requires_grad=True)
    for reason, found in {
        "128 tokens per atom, not 129": cutoff_attention.reason(torch.zeros(1, 129, 6), X, 1, 1.0),
        "64 numbers of a head, not 65": cutoff_attention.reason(torch.zeros(1, 2, 195), X, 1, 1.0),
        "256 numbers of a token, not 257": fused_linear.reason(torch.zeros(1, 257), X, X),
        "weights are trained": fused_linear.reason(torch.zeros(1, 3), weight, X),
        "128 numbers of a geometry, not 129": edge_embedding.reason(
            *none, torch.zeros(129, 4), Encoding(True, 0.1, 0.5, True)
        ),
        "2048 pairs in a group, not 3000": pruned_weights.reason(
            torch.ones(3000), frames, 1, FrameConfig()
        ),
        "512 columns of a token, not 513": framed_embedding.reason(torch.zeros(1, 513), *none, X),
        "2048 slots per atom, not 4096": matrix_operation.reason(
            *none[:4], 3.0, capacity=4096, images=(1, 1, 1), method="tiles"
        ),
        "float32 or float64, not torch.float16": lattice_attention.reason(X.half(), *none, None, 1),
    }.items():
        assert found is not None, reason
        assert reason in found
    with torch.no_grad():
        assert fused_linear.reason(torch.zeros(1, 3), weight, X) is None


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is absent")
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda x: x.__name__)
def test_forms_in_triton_exist(operation):
    assert callable(operation.triton_form)
