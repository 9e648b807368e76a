"""The benchmark of a training step records exactly the matrix products of that step."""

import importlib
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def floor(monkeypatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of this installation")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("training_floor")


def test_floor_is_below_the_step(floor):
    row = floor.measure(2, 16, "float64", "adam", 3)
    assert 0 < row["share"] < 1
    assert row["n_atoms"] == 6
    assert row["products"] > 50
    assert row["gflop"] > 0


def test_replayed_products_are_the_recorded_ones(floor):
    a, b = torch.rand(5, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    with floor.Recorder() as recorder:
        _ = a @ b.T
        _ = torch.addmm(torch.rand(4, dtype=torch.float64), a, b.T)
        _ = torch.rand(2, 3, 4) @ torch.rand(2, 4, 5)
        _ = a * 2
    names = [str(call[0]) for call in recorder.calls]
    assert names == ["aten.mm.default", "aten.addmm.default", "aten.bmm.default"]
    transposed = recorder.calls[0][1][1]
    assert transposed == ((3, 4), (1, 3), torch.float64)
    assert floor.operand(transposed, torch.Generator()).stride() == (1, 3)
    floor.replay(recorder.calls)()


def test_a_product_in_place_is_replayed(floor):
    total, a, b = torch.zeros(2, 3, 5), torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    with floor.Recorder() as recorder:
        total.baddbmm_(a, b)
    torch.testing.assert_close(total, a @ b)
    with FlopCounterMode(display=False, custom_mapping=floor.IN_PLACE) as counter:
        floor.replay(recorder.calls)()
    assert counter.get_total_flops() == 2 * 2 * 3 * 4 * 5


def test_a_lost_product_is_noticed(floor, monkeypatch):
    monkeypatch.delitem(floor.PRODUCTS, torch.ops.aten.bmm.default)
    with pytest.raises(RuntimeError, match="recorded products have"):
        floor.measure(2, 16, "float64", "adam", 1)
