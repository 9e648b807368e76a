"""How a calculator makes a potential symmetric under rotations and inversion."""

from __future__ import annotations

from typing import Final, Literal

from pet_calc.calculators.space_group import operations_of
from pet_calc.models import EnergyModel
from pet_calc.models.architectures import Model
from pet_calc.models.ecse.ensemble import Ensemble, is_strictly_local
from pet_calc.models.pet import PET

Symmetry = Literal["auto", "local", "layerwise", "structure", "quadrature"]
MODES: Final = ("auto", "local", "layerwise", "structure", "quadrature")


def is_layerwise(model: EnergyModel) -> bool:
    """Whether the model was made for layerwise ECSE."""
    return isinstance(model, PET) and model.config.ecse == "layerwise"


def is_invariant(model: EnergyModel) -> bool:
    """Whether the model is exactly symmetric by itself."""
    return isinstance(model, PET) and model.config.invariant


def exact_mode(model: EnergyModel) -> Literal["local", "structure"]:
    """The cheapest mode that makes a model exactly symmetric which is not so by itself."""
    return "local" if is_strictly_local(model) else "structure"


def check_symmetry(ecse: Symmetry | Literal[False] | None) -> None:
    """Raise `ValueError` for what is no mode."""
    if ecse is not None and ecse is not False and ecse not in MODES:
        raise ValueError(
            f"`ecse` must be None, False or one of {', '.join(map(repr, MODES))}, got {ecse!r}"
        )


def is_ensemble(model: EnergyModel, ecse: Symmetry | Literal[False] | None) -> bool:
    """Whether the model is evaluated in several orientations, and not just once."""
    return ecse is not None and ecse is not False and not is_invariant(model)


def symmetrized(model: Model, ecse: Symmetry | Literal[False] | None) -> EnergyModel:
    """A model that is symmetric in the way that is asked for.

    Parameters
    ----------
    model : Model
    ecse : str, False or None
        See `PETCalculator`.

    Raises
    ------
    ValueError
        If the model does not allow it.
    """
    if ecse is None:
        return model
    layerwise = is_layerwise(model)
    if ecse is False:
        if layerwise:
            raise ValueError(
                "`ecse` cannot be False for this potential: it was trained in local frames and is "
                "another function without them; leave `ecse` out"
            )
        return model
    if ecse == "layerwise" and not layerwise:
        raise ValueError(
            "`ecse` can be 'layerwise' only for a potential that was trained so ([model] "
            "ecse = \"layerwise\" in train.toml); use 'auto', 'structure' or 'quadrature' for this "
            "one"
        )
    if is_invariant(model):
        return model
    mode = exact_mode(model) if ecse == "auto" else ecse
    assert mode != "layerwise"
    return Ensemble(model, mode, find_operations=operations_of if mode == "structure" else None)
