"""What a prediction is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PredictConfig:
    """Settings of a prediction.

    Attributes
    ----------
    properties : tuple of str
        Such as "formation_energy", "band_gap", "is_metal", "bulk_modulus" or "shear_modulus".
    model : str
        Name of a shipped property model, or a folder that `pet-calc train` made; "auto" picks the
        newest shipped one for each property.
    """

    properties: tuple[str, ...]
    model: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.properties, tuple) or not self.properties:
            raise ValueError(
                f"`properties` must be a tuple of names such as ('band_gap',), got "
                f"{self.properties!r}"
            )
