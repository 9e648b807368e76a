"""A headless Chromium for tests of pages: what a page says, asks the network for, and shows."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class Visit:
    """What a page did.

    Attributes
    ----------
    dom : str
        The document at the end, without its scripts.
    console : list of str
        Messages of the page; reports of the graphics driver are left out.
    requests : list of str
        Addresses that the page asked the network for. Those of the browser itself, which it asks
        for on every start, are left out.
    """

    dom: str
    console: list[str]
    requests: list[str]


def chromium() -> str:
    """Path of a Chromium: ``PET_CALC_CHROMIUM``, the path, or Playwright's; skips without."""
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    found = [os.environ.get("PET_CALC_CHROMIUM"), *map(shutil.which, NAMES)]
    found += [str(p) for p in sorted(cache.glob("chromium-*/chrome-linux*/chrome"))]
    for path in filter(None, found):
        return path
    pytest.skip("needs Chromium: install it, or name it in PET_CALC_CHROMIUM")


def run(page: Path, scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a network until nothing more happens in it."""
    return subprocess.run(
        [
            chromium(),
            "--headless",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={scratch / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=15000",
            "--window-size=1200,1500",
            *arguments,
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )


def visit(page: Path, scratch: Path) -> Visit:
    """Open a page and record what it does."""
    log = scratch / "net.json"
    done = run(page, scratch, "--dump-dom", f"--log-net-log={log}")
    lines = [line for line in done.stderr.splitlines() if "CONSOLE:" in line]
    requests = []
    for event in json.loads(log.read_text(encoding="utf-8"))["events"]:
        asked = event.get("params", {})
        if isinstance(asked, dict) and asked.get("initiator", "not an origin") != "not an origin":
            requests.append(asked["url"])
    dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    return Visit(dom, [x for x in lines if "GL Driver Message" not in x], requests)


def screenshot(page: Path, scratch: Path) -> Path:
    """A picture of the page."""
    path = scratch / "page.png"
    run(page, scratch, f"--screenshot={path}")
    return path


#: Counts what the 3-D view has drawn; it lives in shadow trees, which a dump of the page leaves
#: out.
PROBE = """
<script>
(function look(tries) {
  if (document.documentElement.dataset.viewer !== "ready" && tries > 0) {
    setTimeout(look, 200, tries - 1);
    return;
  }
  setTimeout(function () {
    var count = function (root, selector) {
      var n = root.querySelectorAll(selector).length;
      root.querySelectorAll("*").forEach(function (e) {
        if (e.shadowRoot) { n += count(e.shadowRoot, selector); }
      });
      return n;
    };
    var data = document.documentElement.dataset;
    data.canvases = count(document, "canvas");
    data.plots = count(document, ".gl-canvas");
    data.refusals = count(document, ".no-webgl");
  }, 1000);
})(40);
</script>
"""


def probed(page: Path) -> Path:
    """A copy of a page that counts canvases, plots and refused plots on its root element."""
    copy = page.with_name("probed.html")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    return copy
