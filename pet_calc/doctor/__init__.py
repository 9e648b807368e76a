"""Checks of a calculator on the user's own structure.

>>> from pet_calc.doctor import examine
>>> report = examine(atoms, PETCalculator())  # doctest: +SKIP
>>> report.verdict, report["rotation"].values  # doctest: +SKIP

``finding`` holds verdicts and limits, ``evaluation`` the one way to ask a calculator;
``derivatives``, ``symmetry``, ``consistency``, ``coverage``, ``performance`` and ``dynamics`` hold
the checks, each a function that returns a :class:`Finding`; ``examination`` runs them all.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.doctor.config import DoctorConfig
    from pet_calc.doctor.examination import examine
    from pet_calc.doctor.finding import EXIT_CODES, Finding, Limit, Report, Verdict

__all__ = ["EXIT_CODES", "DoctorConfig", "Finding", "Limit", "Report", "Verdict", "examine"]

__getattr__ = lazy_names(__name__, "config", "finding", "examination")
