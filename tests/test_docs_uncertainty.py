"""docs/uncertainty.md: its example runs, and shows what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "uncertainty.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["python", "toml", "bash", "python"]
    data, config, commands, use = (text for _, text in BLOCKS)
    run(sys.executable, "-c", data, folder=tmp_path)
    (tmp_path / "train.toml").write_text(config, encoding="utf-8")
    program = "import sys; sys.argv[0] = 'pet-calc'; from pet_calc.cli import main; main()"
    printed = ""
    for line in commands.splitlines():
        name, *words = shlex.split(line)
        assert name == "pet-calc"
        printed = run(sys.executable, "-c", program, *words, folder=tmp_path)
    ratio = re.search(r"root mean square of e / σ +│ +([\d.]+)", printed)
    assert ratio is not None
    assert 0.4 < float(ratio[1]) < 2.5
    lines = run(sys.executable, "-c", use, folder=tmp_path).splitlines()
    known, far = (int(m[1]) for m in map(re.compile(r"energy ± (\d+) meV").search, lines) if m)
    assert far > 5 * known
