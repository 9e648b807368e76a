"""How a calculator makes a potential symmetric under rotations and inversion."""

from __future__ import annotations

from typing import Final, Literal

from pet_calc.geometry import System
from pet_calc.models import EnergyModel
from pet_calc.models.architectures import Model
from pet_calc.models.ecse.ensemble import Ensemble, is_strictly_local
from pet_calc.models.pet import PET

Symmetry = Literal["auto", "local", "layerwise", "structure", "quadrature"]
MODES: Final = ("auto", "local", "layerwise", "structure", "quadrature")


def is_layerwise(model: EnergyModel) -> bool:
    """Whether the model was made for layerwise ECSE and is symmetric by itself."""
    return isinstance(model, PET) and model.config.ecse == "layerwise"


def exact_mode(model: EnergyModel) -> Literal["layerwise", "local", "structure"]:
    """The cheapest mode that makes a model exactly symmetric."""
    if is_layerwise(model):
        return "layerwise"
    return "local" if is_strictly_local(model) else "structure"


def check_symmetry(ecse: Symmetry | Literal[False] | None) -> None:
    """Raise `ValueError` for what is no mode."""
    if ecse is not None and ecse is not False and ecse not in MODES:
        raise ValueError(
            f"`ecse` must be None, False or one of {', '.join(map(repr, MODES))}, got {ecse!r}"
        )


def symmetrised(
    model: Model, system: System, ecse: Symmetry | Literal[False] | None, order: int
) -> EnergyModel:
    """The model of one batch of systems, symmetric in the way that is asked for.

    Parameters
    ----------
    model : Model
    system : System
        The batch that will be evaluated.
    ecse : str, False or None
        See `PETCalculator`.
    order : int
        Of the quadrature.

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
    mode = exact_mode(model) if ecse == "auto" else ecse
    if mode == "layerwise":
        if not layerwise:
            raise ValueError(
                "`ecse` can be 'layerwise' only for a potential that was trained so ([model] "
                "ecse = \"layerwise\" in train.toml); use 'structure' or 'quadrature' for this one"
            )
        return model
    return Ensemble(model, system, mode, order=order)
