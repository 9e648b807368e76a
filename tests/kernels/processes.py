"""Triton in a process of its own, which sees the environment from the start."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def in_a_process(module, function, *arguments, **environment):
    """Call a function of a test module below ``tests`` with an environment of its own."""
    tests = Path(__file__).parents[1]
    code = f"from {module} import {function}; {function}{tuple(arguments)!r}"
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment |= {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent), *inherited])}
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]


def resources(compiled):
    """Registers of a thread of a compiled kernel, and bytes of them that are spilled."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
