"""Crystals that the tests of the generators share."""

import os
from pathlib import Path

import numpy as np
import pytest

from pet_calc.crystals.diffusion.unimat import Crystal
from pet_calc.crystals.io.unimat import read_crystals


def random_crystal(numbers: list[int], seed: int = 0) -> Crystal:
    rng = np.random.default_rng(seed)
    cellpar = np.concatenate([rng.uniform(2, 6, 3), rng.uniform(70, 110, 3)])
    return Crystal(np.array(numbers), rng.uniform(-1, 2, (len(numbers), 3)), cellpar)


CRYSTALS = [
    random_crystal([11, 17]),
    random_crystal([8, 8, 22, 8, 38], 1),
    random_crystal([1, 1, 1, 1, 92, 64], 2),
]


def data_file(name: str) -> Path:
    """A file of the reference data, or a skip where there is none."""
    here = Path(__file__).resolve().parents[3]
    folders = [
        os.environ.get("PET_CALC_DATA", ""),
        here / "shared/data",
        here.parent / "shared/data",
    ]
    for folder in folders:
        path = Path(folder) / "crystals" / name
        if folder and path.is_file():
            return path
    pytest.skip(f"the reference data ({name}) are not here; set PET_CALC_DATA to their folder")


def mp20like(part: str) -> list[Crystal]:
    return read_crystals(data_file(f"mp20like_{part}.npz.xz"))
