"""One form of all models on disk: a folder with ``config.json`` and ``weights.safetensors``.

Nothing is unpickled. ``config.json`` records the digest of the weights file, so that a damaged or
exchanged file is found also in a folder outside of any index::

    {
     "format": 1,
     "kind": "property",
     "architecture": "cgcnn",
     "config": {...},
     "weights_sha256": "...",
     "training": {...}
    }

The kind is "potential", "property" or "generator", so that none is ever read as another; the
files of potentials leave it out. Each kind may add entries of its own
(`pet_calc.io.models.weights`, `pet_calc.crystals.io`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pet_calc.errors import CheckpointError
from pet_calc.io.models.files import CONFIG, WEIGHTS, read_file, require_digest, write_atomically

FORMAT: Final = 1

Kind = Literal["potential", "property", "generator"]
_Config = TypeVar("_Config")
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model of one kind, or is to hold it.

    Attributes
    ----------
    path : Path
    kind : {"potential", "property", "generator"}
    """

    path: Path
    kind: Kind = "potential"

    def write(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
        """Write both files, each in one rename; returns the SHA-256 of the weights.

        Parameters
        ----------
        values : mapping
            Entries of ``config.json`` besides format, kind and digest: at least "architecture" and
            "config".
        tensors : mapping of str to Tensor

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        weights = safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        )
        digest = hashlib.sha256(weights).hexdigest()
        kind = {} if self.kind == "potential" else {"kind": self.kind}
        # the configuration comes last: where it is, the weights are
        write_atomically(self.path / WEIGHTS, weights)
        self.write_config({"format": FORMAT, **kind, **values, "weights_sha256": digest})
        return digest

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Write ``config.json`` alone; its weights are there already.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path / CONFIG, text.encode())

    def config(self) -> dict[str, Any]:
        """Content of ``config.json``, its format and kind checked.

        Raises
        ------
        PotentialNotFoundError
            If there is no such file.
        CheckpointError
            If it is damaged, of another format, or of another kind.
        """
        return self._parsed(read_file(self.path / CONFIG))

    def read(
        self, expected_sha256: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Content of ``config.json`` and the tensors, after their digests have been compared.

        Parameters
        ----------
        expected_sha256 : mapping, optional
            File name to digest, as an index of models records them. The digest of the weights that
            ``config.json`` records is compared in any case.

        Raises
        ------
        PotentialNotFoundError
            If a file is missing.
        IntegrityError
            If a file does not have its recorded SHA-256.
        CheckpointError
            If a file is damaged, or of another format or kind.
        """
        # each file is read once: what is compared is what is used
        contents = {name: read_file(self.path / name) for name in (CONFIG, WEIGHTS)}
        for name, content in contents.items():
            if expected_sha256 and name in expected_sha256:
                require_digest(self.path / name, content, expected_sha256[name])
        values = self._parsed(contents[CONFIG])
        recorded = values.get("weights_sha256")
        if not isinstance(recorded, str):
            raise CheckpointError(
                f"{self.path / CONFIG} must record the digest of {WEIGHTS} under 'weights_sha256'"
            )
        require_digest(self.path / WEIGHTS, contents[WEIGHTS], recorded)
        return values, tensors_of(self.path / WEIGHTS, contents[WEIGHTS])

    def described(self, build: Callable[[dict[str, Any]], _Config], options: object) -> _Config:
        """The configuration that `build` makes of the recorded `options`.

        Raises
        ------
        CheckpointError
            If the options are not those of such a configuration.
        """
        if not isinstance(options, dict):
            raise CheckpointError(
                f"{self.path / CONFIG} must hold the model's options as an object, got "
                f"{type(options).__name__}"
            )
        try:
            return build(options)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / CONFIG} does not describe a model of its architecture: {error}"
            ) from error

    def fill(self, model: _Module, tensors: dict[str, Tensor]) -> _Module:
        """The model with the stored weights, frozen and in evaluation mode.

        Raises
        ------
        CheckpointError
            If the tensors do not fit the model.
        """
        require_matching(self.path / WEIGHTS, model, tensors)
        model.load_state_dict(tensors)
        return model.requires_grad_(False).eval()

    def _parsed(self, content: bytes) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            values = json.loads(content)
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{path} must hold a JSON object, got {type(values).__name__}")
        found = (values.get("format"), values.get("kind", "potential"))
        if found != (FORMAT, self.kind):
            raise CheckpointError(
                f"{path} must be of format {FORMAT} and kind {self.kind!r}, got {found}; a newer "
                f"pet_calc may read it"
            )
        return values


def tensors_of(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def require_matching(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` naming the tensors of a file that do not fit the model."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected == found:
        return
    problems = [
        *(f"{n} is missing" for n in sorted(expected.keys() - found.keys())),
        *(f"{n} is unknown" for n in sorted(found.keys() - expected.keys())),
        *(
            f"{n} has shape {found[n]} instead of {expected[n]}"
            for n in sorted(expected.keys() & found.keys())
            if expected[n] != found[n]
        ),
    ]
    shown = "; ".join(problems[:5])
    raise CheckpointError(
        f"{path} does not fit the configuration beside it: {shown} ({len(problems)} tensor(s) in "
        f"all); the two files belong to different models"
    )
