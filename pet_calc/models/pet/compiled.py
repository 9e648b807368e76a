"""PET with its dense regions compiled by torch.compile, for evaluation."""

from __future__ import annotations

from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.pet.model import PET


def compile_regions(model: PET) -> PET:
    """Compile the transformers of a model in place, and return it."""
    for layer in model.gnn_layers:
        assert isinstance(layer, MessageLayer)
        layer.trans.compile(dynamic=True)
    return model
