"""What a check answers, and the verdict over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Of one check, or of all.

    ``info`` marks a measurement that nothing is wrong with at any value; ``not applicable`` a
    check that this calculator or structure does not allow, with the reason as its finding.
    """

    PASS = "pass"
    INFO = "info"
    SKIP = "not applicable"
    WARN = "warning"
    FAIL = "fail"


#: Exit code of ``pet-calc doctor``; 2 is taken by wrong usage of the command line.
EXIT_CODES = {Verdict.PASS: 0, Verdict.WARN: 3, Verdict.FAIL: 1}


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes
    ----------
    check : str
        Its name.
    verdict : Verdict
    found : str
        The measured values with their units, or the reason why the check does not apply.
    rule : str
        What passes, and from where on it fails.
    values : dict
        The numbers behind `found`, for programs.
    """

    check: str
    verdict: Verdict
    found: str
    rule: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """A quantity passes up to `good`, draws a warning up to `bad`, and fails above."""

    good: float
    bad: float
    unit: str

    def judge(self, value: float) -> Verdict:
        """Verdict of a value; NaN fails."""
        if value <= self.good:
            return Verdict.PASS
        return Verdict.WARN if value <= self.bad else Verdict.FAIL

    def __str__(self) -> str:
        return f"≤ {self.good:.1g}, fails above {self.bad:.1g} {self.unit}"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of some verdicts: fail, warning, else pass."""
    for verdict in (Verdict.FAIL, Verdict.WARN):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS


def skipped(check: str, reason: str) -> Finding:
    """A check that does not apply."""
    return Finding(check, Verdict.SKIP, reason)


@dataclass(frozen=True)
class Report:
    """All findings of an examination, in the order in which they were made."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict."""
        return worst([f.verdict for f in self.findings])

    @property
    def exit_code(self) -> int:
        """0 if everything passes, 3 with warnings, 1 if a check fails."""
        return EXIT_CODES[self.verdict]

    def __getitem__(self, check: str) -> Finding:
        return next(f for f in self.findings if f.check == check)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite become None."""
        return {
            "verdict": str(self.verdict),
            "exit_code": self.exit_code,
            "findings": [
                {
                    "check": f.check,
                    "verdict": str(f.verdict),
                    "found": f.found,
                    "rule": f.rule,
                    "values": plain(f.values),
                }
                for f in self.findings
            ],
        }


def plain(value: Any) -> Any:
    """Nested values without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
