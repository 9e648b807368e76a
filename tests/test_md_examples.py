"""Every example runs with ``--smoke`` and prints what its header promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "md_examples"


def smoke(name, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "--smoke", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_water_nvt(tmp_path):
    text = smoke("01_water_nvt.py", tmp_path)
    found = re.search(r"g_OO first peak\s+(\d\.\d+)", text)
    assert found is not None, text
    assert 2.2 < float(found[1]) < 3.5
    assert {"trajectory.traj", "log.csv", "water.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_relax_to_elastic(tmp_path):
    text = smoke("04_relax_to_elastic.py", tmp_path)
    found = {name: float(value) for name, value in re.findall(r"(B from \S+)\s+(\S+) GPa", text)}
    assert len(found) == 2, text
    elasticity, energy = found.values()
    # copper of EMT
    assert abs(elasticity - 134.5) < 0.5
    assert abs(energy - elasticity) < 0.5
    assert {"elastic.json", "eos.png"} == {path.name for path in (tmp_path / "out").iterdir()}
