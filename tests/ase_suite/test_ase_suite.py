"""ASE's own tests of what moves atoms, with a calculator of pet_calc in the place of EMT."""

import pytest
from ase_suite.runner import FAST, LONG, SLOW, run_modules

pytest.importorskip("ase.test.conftest", reason="ASE is installed without its tests")


def require_pass(modules, folder):
    counts, output = run_modules(modules, folder)
    assert set(counts) == set(modules), output[-3000:]
    for module in modules:
        found = counts[module]
        assert not found.get("failed"), output[-6000:]
        assert found.get("passed") or found.get("xfailed"), f"{module}: {found}"
        assert not found.get("skipped"), f"{module}: {found}"
        assert found["calculations"] > 0, f"{module} never asked a stand-in"


def test_fast_modules_pass(tmp_path):
    require_pass(FAST, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("module", [*SLOW, *LONG])
def test_slow_module_passes(module, tmp_path):
    require_pass([module], tmp_path)


def test_report_is_complete(repo_root):
    page = (repo_root / "docs" / "ase_suite.md").read_text(encoding="utf-8")
    listed = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert listed[1:-1] == [*FAST, *SLOW]  # between the head and the sum
