"""One-page HTML reports: figures, tables, provenance and an interactive 3-D view, in one file.

>>> from pet_calc.workflows.report import Picture, Section, Structures, Table, write_report
>>> write_report(
...     "report.html",
...     "Liquid water",
...     [Section("Results", [Table(("quantity", "value"), [("density", "1.00 g/cm³")])])],
...     structures=Structures(frames),
...     provenance=provenance(calculator),
... )

The file needs no server and no network: pictures, data and the viewer (chemiscope, BSD-3-Clause,
``pip install "pet-calc[report]"``) are inside, and a content security policy in its head forbids
the browser every request to elsewhere. (The policy allows ``eval``, with which the viewer's plot
makes its WebGL commands.)
"""

from pet_calc.workflows.report.folders import REPORT, report_folder
from pet_calc.workflows.report.page import Picture, Section, Table, Text, write_report
from pet_calc.workflows.report.viewer import Structures, require_viewer

__all__ = [
    "REPORT",
    "Picture",
    "Section",
    "Structures",
    "Table",
    "Text",
    "report_folder",
    "require_viewer",
    "write_report",
]
