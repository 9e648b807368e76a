"""Every example runs with ``--smoke`` and prints what its header promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from calculators.small_potentials import small_pet

from pet_calc.io.weights import save_model

EXAMPLES = Path(__file__).parents[1] / "md_examples"


def smoke(name, tmp_path, *options):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "--smoke", *options, "--out", str(tmp_path / "out")],
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


def test_si_phonons(tmp_path):
    pytest.importorskip("phonopy")
    save_model(tmp_path / "model", small_pet((14,)))
    text = smoke("05_si_phonons.py", tmp_path, "--model", str(tmp_path / "model"))
    assert re.search(r"optical mode at Γ\s+-?\d+\.\d+ THz", text), text
    assert {"phonons.png", "phonopy.yaml"} <= {p.name for p in (tmp_path / "out").iterdir()}
