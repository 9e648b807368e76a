import re
import sys
from html.parser import HTMLParser

import pytest
from ase.build import bulk
from matplotlib.figure import Figure
from matplotlib.image import imread
from workflows.report.browser import probed, screenshot, visit

from pet_calc.errors import MissingDependencyError
from pet_calc.workflows.report import Picture, Section, Structures, Table, Text, write_report


class Resources(HTMLParser):
    """Collects whatever a page would load, and its tags."""

    LOADS = ("src", "href", "srcset", "data", "poster", "action", "background")

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.loads += [v for k, v in attributes if k in self.LOADS]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def picture():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, 1])
    return Picture.from_figure(figure, "a line")


SECTIONS = [
    Section("Results", [Table(("quantity", "value"), [("T", 300.0), ("ok", True)], "caption")]),
    Section("Words & <figures>", [Text("1 < 2"), picture()]),
]


def page(tmp_path, **options):
    path = write_report(tmp_path / "report.html", "Water <script>x</script>", SECTIONS, **options)
    return path, path.read_text(encoding="utf-8")


def test_page_is_whole_and_loads_nothing(tmp_path, frames):
    path, text = page(
        tmp_path,
        structures=Structures(frames),
        settings={"steps": 3, "guards": {"contact": 0.6}},
        provenance={"command": "pet-calc md </script>", "versions": {"ase": "3"}},
    )
    found = Resources(text)
    assert not found.open  # every element is closed: no text broke out of its place
    assert found.loads
    assert all(x.startswith("data:") for x in found.loads)
    assert found.tags.count("script") == 3  # data, library, start
    assert "url(http" not in text.split("<script", 1)[0]
    for part in ("guards.contact", "versions.ase", "Words &amp; &lt;figures&gt;", "300"):
        assert part in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert 3e6 < path.stat().st_size < 5e6


def test_without_structures_there_is_no_script(tmp_path):
    _, text = page(tmp_path)
    assert "script" not in Resources(text).tags
    assert len(text) < 100_000


def test_frames_are_thinned(tmp_path, frames):
    shown = Structures(frames, most_atoms=5 * 24)
    assert shown.chosen() == [0, 3, 6, 8, 11]
    assert len(Structures(frames, most_atoms=1).chosen()) == 2
    _, text = page(tmp_path, structures=shown)
    assert "5 of 12 frames, equally spaced" in text


def test_small_cells_are_repeated(tmp_path, frames):
    for structure, repeats in ((bulk("Cu"), "3,3,3"), (frames[0], "1,1,1")):
        _, text = page(tmp_path, structures=Structures([structure], trajectory=False))
        assert f'"supercell":[{repeats}]' in text
        assert "<h2>Structure</h2>" in text


def test_positions_are_wrapped_and_short(tmp_path, frames):
    moved = [a.copy() for a in frames[:2]]
    for atoms in moved:
        atoms.positions += 100.0
    _, text = page(tmp_path, structures=Structures(moved))
    data = text.split('id="viewer-data">', 1)[1].split("</script>", 1)[0]
    numbers = [float(x) for x in re.findall(r"-?\d+\.\d+", data)]
    assert max(numbers) < 20
    assert not re.search(r"\.\d{5}", data.split('"cell"')[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Structures([]), "at least one structure"),
        (lambda: Picture(b"GIF89a"), "must be PNG"),
        (lambda: Table(("a", "b"), [(1,)]), "needs rows of as many values"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_properties_must_fit_the_frames(frames):
    with pytest.raises(ValueError, match="value for each of the 12 frames, got 3"):
        Structures(frames, {"energy": ([1.0, 2.0, 3.0], "eV")})


def test_missing_viewer_is_said_and_leaves_no_file(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    with pytest.raises(MissingDependencyError, match=r"pet-calc\[report\]"):
        page(tmp_path, structures=Structures(frames))
    assert not list(tmp_path.iterdir())
    page(tmp_path)


def test_browser_sees_network_and_errors(tmp_path):
    """The control: a page that does what a report must not."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><img src="http://example.invalid/a.png"><script>undefined.x</script>'
    )
    seen = visit(bad, tmp_path)
    assert seen.requests == ["http://example.invalid/a.png"]
    assert any("Uncaught TypeError" in line for line in seen.console)


def counts(seen):
    found = re.search("<html[^>]*>", seen.dom)[0]
    return {k: int(v) for k, v in re.findall(r'data-(canvases|plots|refusals)="(\d+)"', found)}


@pytest.mark.parametrize("kind", ["plot", "structure"])
def test_page_works_in_a_browser(tmp_path, frames, kind):
    steps = [float(k) for k in range(12)]
    properties = {"frame": (steps, ""), "energy": (steps, "eV")} if kind == "plot" else {}
    path, _ = page(tmp_path, structures=Structures(frames, properties))
    seen = visit(probed(path), tmp_path)
    assert seen.console == []
    assert seen.requests == []
    assert 'data-viewer="ready"' in seen.dom
    found = counts(seen)
    assert found["canvases"] > 0
    assert found["refusals"] == 0
    assert (found["plots"] > 0) is (kind == "plot")


def test_a_plot_that_cannot_draw_is_noticed(tmp_path, frames):
    """The control: a policy too strict for the plot's graphics, which fail without a message."""
    steps = [float(k) for k in range(12)]
    properties = {"frame": (steps, ""), "energy": (steps, "eV")}
    path, text = page(tmp_path, structures=Structures(frames, properties))
    assert "'unsafe-eval'" in text
    path.write_text(text.replace("'unsafe-eval'", ""), encoding="utf-8")
    seen = visit(probed(path), tmp_path)
    assert counts(seen)["refusals"] > 0


def test_policy_stops_what_would_leave_the_page(tmp_path, frames):
    path, text = page(tmp_path)
    leak = '<img src="http://example.invalid/a.png"></main>'
    path.write_text(text.replace("</main>", leak), encoding="utf-8")
    seen = visit(path, tmp_path)
    assert seen.requests == []
    assert any("Content Security Policy" in line for line in seen.console)


def test_atoms_are_drawn(tmp_path, frames):
    path = write_report(tmp_path / "report.html", "Water", [], structures=Structures(frames))
    red, green, blue = imread(screenshot(path, tmp_path))[..., :3].transpose(2, 0, 1)
    assert ((red > 0.6) & (green < 0.25) & (blue < 0.25)).sum() > 1000  # oxygen


def test_examples_of_the_docs_run(tmp_path, frames, md_folder, monkeypatch, repo_root):
    """The Python blocks of docs/report.md and docs/observables.md, on a small trajectory."""
    monkeypatch.chdir(tmp_path)
    for name in ("trajectory.traj", "md.png"):
        (tmp_path / name).write_bytes((md_folder / name).read_bytes())
    for page in ("report.md", "observables.md"):
        text = (repo_root / "docs" / page).read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            exec(compile(block, f"<docs/{page}>", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "report.html").stat().st_size > 3e6
