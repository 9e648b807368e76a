"""Shared fixtures: where reference data lie, threads, and a watch over global state."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile(
    "pet_calc", deadline=None, derandomize=True, print_blob=True, max_examples=25
)
hypothesis.settings.load_profile("pet_calc")


def pytest_configure(config: pytest.Config) -> None:
    # Small tensors: more threads only wait for each other, above all on busy machines.
    torch.set_num_threads(1)
    os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(no_gpu)


def _folder_or_skip(variable: str, beside: str) -> Path:
    folder = Path(os.environ.get(variable) or REPO.parent / "shared" / beside)
    if not folder.is_dir():
        pytest.skip(f"reference files are not in the repository; set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of first-principles data sets (``PET_CALC_DATA``); skips where there is none."""
    return _folder_or_skip("PET_CALC_DATA", "data")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of reference results (``PET_CALC_REFERENCE``); skips where there is none."""
    return _folder_or_skip("PET_CALC_REFERENCE", "reference")


def _global_state() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "gradients enabled": torch.is_grad_enabled(),
    }


@pytest.fixture(autouse=True)
def _global_state_stays() -> Iterator[None]:
    """The package never changes torch's global settings; a test that sees it do so fails."""
    before = _global_state()
    yield
    assert _global_state() == before
