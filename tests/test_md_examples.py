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


def test_water_dynamics(tmp_path):
    text = smoke("02_water_dynamics.py", tmp_path)
    found = re.search(r"O-H stretching peak\s+(\d+)", text)
    assert found is not None, text
    assert 2500 < int(found[1]) < 4500
    assert "self-diffusion" in text
    assert (tmp_path / "out" / "observables.png").is_file()
