"""The precision of matrix products holds for a block, and torch's state is as it was after it."""

import pytest
import torch

from pet_calc import PETCalculator
from pet_calc.kernels.precision import current_precision, matmul_precision, require_precision


def state():
    return torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()


def test_the_state_is_put_back():
    before = state()
    with matmul_precision("highest"):
        assert state() == before
        assert current_precision() == "highest"
    with matmul_precision("high"):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert current_precision() == "high"
    with matmul_precision("fast"):  # what is left to torch
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert current_precision() == "fast"
    assert state() == before
    with pytest.raises(RuntimeError, match="inside"), matmul_precision("high"):
        raise RuntimeError("inside")
    assert state() == before
    assert current_precision() == "highest"


def test_refusals():
    with pytest.raises(ValueError, match="must be 'highest', 'high' or 'fast', got 'low'"):
        require_precision("low", torch.device("cpu"), "reference")
    with pytest.raises(ValueError, match="TensorFloat-32, which CUDA devices have"):
        PETCalculator(device="cpu", precision="high")
    require_precision("high", torch.device("cuda"), "reference")
    with pytest.raises(ValueError, match="'fast' is bfloat16, which CUDA devices have"):
        PETCalculator(device="cpu", precision="fast")
    with pytest.raises(ValueError, match=r"bfloat16 in the Triton kernels.* give `kernels`"):
        require_precision("fast", torch.device("cuda"), "reference")
    require_precision("fast", torch.device("cuda"), "triton")
