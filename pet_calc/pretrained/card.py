"""The card of a potential: the ``README.md`` in its folder.

It begins with front matter between two lines ``---``, one ``key: value`` per line, where the value
is JSON (thus YAML as well) or plain text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pet_calc.errors import CheckpointError, PotentialNotFoundError

CARD: Final = "README.md"


@dataclass(frozen=True)
class Card:
    """A potential's ``README.md``.

    Attributes
    ----------
    front : dict
        The machine-read front matter.
    text : str
        What follows it.
    """

    front: dict[str, Any]
    text: str


def read_card(folder: Path) -> Card:
    """A potential's card.

    Raises
    ------
    PotentialNotFoundError
        If there is none.
    CheckpointError
        If its front matter is malformed.
    """
    path = folder / CARD
    if not path.is_file():
        raise PotentialNotFoundError(f"there is no card {path}")
    content = path.read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?)\n---\n(.*)", content, flags=re.DOTALL)
    if match is None:
        raise CheckpointError(f"{path} must begin with front matter between two lines ---")
    front: dict[str, Any] = {}
    for line in match[1].splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise CheckpointError(f"front matter is `key: value` per line, but {path} has {line!r}")
        front[key.strip()] = _value(value.strip())
    return Card(front, match[2])


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
