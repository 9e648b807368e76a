"""The public pretrained models of CGCNN (https://github.com/txie-93/cgcnn, ``.pth.tar``).

They take 92 tabulated numbers per element, which their repository has in ``atom_init.json``,
through a linear map. Evaluated for each element, that is the learned vector of this package's
model. The two outputs of a published classifier become one logit, their difference.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from pet_calc.crystals.models import PropertyConfig, PropertyEnsemble, PropertyModel, Target
from pet_calc.errors import CheckpointError
from pet_calc.models.unpickling import read_checkpoint


def import_cgcnn(checkpoint: Path, element_table: Path, target: Target) -> PropertyEnsemble:
    """A published model, with the graphs that it was trained on.

    Parameters
    ----------
    checkpoint : Path
        Such as ``band-gap.pth.tar``; nothing in it is executed.
    element_table : Path
        ``atom_init.json``.
    target : Target
        Name, unit and kind of what it predicts, which the file does not say.

    Raises
    ------
    CheckpointError
        If a file is damaged or of another model.
    """
    content = read_checkpoint(checkpoint.read_bytes())
    try:
        table = {
            int(z): row for z, row in json.loads(element_table.read_text(encoding="utf-8")).items()
        }
        state, normalizer = content["state_dict"], content["normalizer"]
        elements = tuple(sorted(table))
        features = torch.tensor([table[z] for z in elements], dtype=torch.float32)
        layers = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("convs."))
        width, hidden = len(state["embedding.bias"]), len(state["conv_to_fc.bias"])
        if any(n.startswith("fcs.") for n in state):
            raise CheckpointError(f"{checkpoint} has more than one hidden layer behind the pooling")
        options = {"width": width, "layers": layers, "published": True}
        model = PropertyModel(PropertyConfig(elements, (target,), "cgcnn", options, hidden))
        model.load_state_dict(model.state_dict() | translated(state, features, layers))
        if target.kind != "class":
            model.target_mean.fill_(float(normalizer["mean"]))
            model.target_scale.fill_(float(normalizer["std"]))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint} and {element_table} are no published CGCNN with its table ({error!r})"
        ) from error
    return PropertyEnsemble.of([model]).requires_grad_(False).eval()


def translated(state: dict[str, Tensor], features: Tensor, layers: int) -> dict[str, Tensor]:
    """Tensors of a published model under the names of `PropertyModel`."""
    found = {
        "backbone.embedding.weight": features @ state["embedding.weight"].T
        + state["embedding.bias"],
        "trunk.weight": state["conv_to_fc.weight"],
        "trunk.bias": state["conv_to_fc.bias"],
    }
    names = {"linear": "fc_full", "norm_edge": "bn1", "norm_node": "bn2"}
    for k in range(layers):
        for new, old in names.items():
            prefix = f"convs.{k}.{old}."
            parts = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            found |= {f"backbone.layers.{k}.{new}.{n}": t for n, t in parts.items()}
    for n in ("weight", "bias"):
        last = state[f"fc_out.{n}"]
        found[f"last.{n}"] = last[1:] - last[:1] if len(last) == 2 else last
    return found
