"""System: shapes, refusals, batches."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from contracts.structures import slab, water_box

from pet_calc.errors import InvalidStructureError
from pet_calc.geometry import System


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("positions", torch.zeros(23, 3), r"`positions` must have shape \(24, 3\).*got \(23, 3\)"),
        ("positions", torch.zeros(24), r"`positions` must have shape .*got \(24,\)"),
        ("cell", torch.zeros(1, 3), r"`cell` must have shape \(1, 3, 3\).*got \(1, 3\); use Sys"),
        ("pbc", torch.zeros(3, dtype=torch.bool), r"`pbc` must have shape \(1, 3\)"),
        (
            "system_index",
            torch.zeros(2, dtype=torch.int64),
            r"`system_index` must .* \(24 atoms in 1 sys",
        ),
        ("system_index", torch.zeros(24, 1, dtype=torch.int64), r"`system_index` must have"),
    ],
)
def test_wrong_shape_is_refused_by_name(field: str, value: torch.Tensor, rule: str) -> None:
    with pytest.raises(InvalidStructureError, match=rule):
        replace(water_box(), **{field: value})


def test_single_without_cell_is_free() -> None:
    free = System.single(torch.zeros(2, 3), torch.tensor([1, 1]))
    assert not free.pbc.any()
    assert not free.cell.any()
    assert free.cell.shape == (1, 3, 3)
    assert free.system_index.tolist() == [0, 0]


def test_system_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        water_box().positions = torch.zeros(24, 3)  # type: ignore[misc]


def test_batch_keeps_every_system() -> None:
    a, b = water_box(), slab()
    batch = System.concatenate([a, b, a])
    assert batch.n_systems == 3
    assert batch.n_atoms == 2 * a.n_atoms + b.n_atoms
    assert batch.system_index.bincount().tolist() == [24, 9, 24]
    assert torch.equal(batch.positions[24:33], b.positions)
    assert torch.equal(batch.numbers[24:33], b.numbers)
    assert torch.equal(batch.cell[1:2], b.cell)
    assert torch.equal(batch.pbc[1:2], b.pbc)
    nested = System.concatenate([a, System.concatenate([b, a])])
    assert torch.equal(nested.system_index, batch.system_index)


def test_empty_batch_is_refused() -> None:
    with pytest.raises(InvalidStructureError, match="at least one system"):
        System.concatenate([])


def test_to_device_keeps_the_values() -> None:
    a = water_box()
    b = a.to("cpu")
    assert b.device == torch.device("cpu")
    assert torch.equal(a.positions, b.positions)
