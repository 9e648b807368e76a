"""PET with its transformers compiled, for long runs of energies and forces.

The transformers are where the time goes, and their shapes change from step to step: atoms are
sorted into a few batches by their number of neighbors. They are compiled once for all shapes
[torch.compile with ``dynamic=True``], which takes about half a minute at the first evaluation and
needs a C++ compiler on a CPU. Training differentiates twice, which compiled regions cannot do.
"""

from __future__ import annotations

from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.pet.model import PET


def compile_regions(model: PET) -> PET:
    """Compile the transformers of a model in place; results stay equal within rounding.

    Parameters
    ----------
    model : PET
        With frozen parameters, as `pet_calc.io.models.weights.load_model` gives it.

    Returns
    -------
    PET
        The same object. A copy of it (`pet_calc.io.models.weights.copy_model`) is not compiled.

    Raises
    ------
    ValueError
        If parameters are trainable.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "`model` must be frozen to be compiled, but has trainable parameters; call "
            "model.requires_grad_(False) on a copy"
        )
    for layer in model.gnn_layers:
        assert isinstance(layer, MessageLayer)
        layer.trans.compile(dynamic=True)
        layer.compiled = True
    return model
