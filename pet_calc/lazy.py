"""Names that a package offers from its modules, each loaded when it is first asked for.

Configurations are read by the command line for ``--help`` and by others who compute nothing; the
modules beside them import torch, ASE and matplotlib, which takes seconds.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazy_names(package: str, *modules: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package: finds the names of its ``__all__`` in its modules.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    modules : str
        Its modules, the cheapest first: they are imported one after the other until one has the
        name.
    """

    def __getattr__(name: str) -> Any:
        face = sys.modules[package]
        if name in face.__all__:
            for module in modules:
                home = importlib.import_module(f"{package}.{module}")
                if hasattr(home, name):
                    value = getattr(home, name)
                    setattr(face, name, value)
                    return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
