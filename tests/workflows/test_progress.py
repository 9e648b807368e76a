import io

from rich.console import Console

from pet_calc.workflows.progress import Progress, ProgressBar, in_stage


def test_a_report_can_be_printed():
    assert str(Progress("band", 3, 8, "barrier 0.2 eV")) == "band 3/8: barrier 0.2 eV"
    assert str(Progress("spectrum", text="bands")) == "spectrum: bands"


def test_stages_can_be_renamed():
    seen = []
    in_stage(seen.append, "volumes")(Progress("relaxation", 1, 2, "x", {"y": 1.0}))
    assert seen == [Progress("volumes", 1, 2, "x", {"y": 1.0})]
    assert in_stage(None, "volumes") is None


def test_a_file_gets_a_line_for_each_stage_and_each_tenth():
    text = io.StringIO()
    with ProgressBar(Console(file=text, width=100)) as bar:
        bar(Progress("supercells", text="64 atoms"))
        for k in range(1, 101):
            bar(Progress("band", k, 100, "moving"))
    lines = text.getvalue().splitlines()
    assert lines[:2] == ["supercells: 64 atoms", "band 1/100: moving"]
    assert lines[2:] == [f"band {k}/100: moving" for k in range(10, 101, 10)]


def test_a_terminal_gets_a_bar():
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with ProgressBar(console) as bar:
        bar(Progress("supercells", 0, 4, "64 atoms"))
        bar(Progress("supercells", 4, 4, "done with them"))
    shown = text.getvalue()
    assert "supercells: 64 atoms" in shown
    assert "4/4" in shown
    assert "done with them" in shown
