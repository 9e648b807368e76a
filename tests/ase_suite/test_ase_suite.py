"""ASE's own tests of what moves atoms, with a calculator of pet_calc in the place of EMT."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ase.test.conftest", reason="ASE is installed without its tests")

HERE = Path(__file__).parent
MODULES = (
    "optimize.test_nsteps",
    "md.test_rng",
)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_of_ase_passes(module, tmp_path):
    counts = tmp_path / "counts.json"
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "stand_in", "-W", "ignore"),
            *("-p", "no:cacheprovider", "--pyargs", f"ase.test.{module}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "ASE_SUITE_COUNTS": str(counts)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads(counts.read_text(encoding="utf-8"))
    assert found["passed"] > 0
    assert found["calculations"] > 0  # the stand-in really was asked
