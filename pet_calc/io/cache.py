"""The folder of the user where downloads and converted models are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``PET_CALC_CACHE`` if it is set, else ``pet_calc`` in the user's cache folder."""
    if named := os.environ.get("PET_CALC_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pet_calc"
