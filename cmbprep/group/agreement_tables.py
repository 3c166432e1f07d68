"""Agreement as a table, its data dictionary, JSON, and text that can be quoted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep import __version__
from cmbprep.files.tsv import MISSING, format_tsv
from cmbprep.group.agreement import LESIONS, Cohort, comparisons
from cmbprep.outputs.files import write_json, write_text
from cmbprep.ratings.agreement import MIN_PARTICIPANTS, Comparison, Figure, Finding, compare
from cmbprep.zones.burden import PATTERN_RULES

#: Name of the table.
AGREEMENT = "group_agreement"
_COLUMNS: dict[str, dict[str, Any]] = {
    "comparison": {
        "Description": "Who is compared.",
        "Levels": {
            "readers": "Two readers, each in the last round that was finished.",
            "rounds": "Two rounds of one reader.",
            "machine": "A reader, or the consensus of the readers, with the detector.",
        },
    },
    "first": {"Description": "First rater; the standard for sensitivity and precision."},
    "second": {"Description": "Second rater."},
    "lesions": {
        "Description": "Which microbleeds count.",
        "Levels": {
            LESIONS[0]: "All that a rater calls definite or possible.",
            LESIONS[1]: "Those that a rater calls definite.",
        },
    },
    "pattern_rule": {
        "Description": "What cerebellar microbleeds count as in the pattern.",
        "Levels": dict(PATTERN_RULES),
    },
    "protocol": {"Description": "Scans of one protocol; all for the scans of every protocol."},
    "figure": {"Description": "What was computed."},
    "value": {"Description": "The figure; n/a where it would mean nothing, see note."},
    "low": {"Description": "Lower end of the 95 % interval (bootstrap over participants)."},
    "high": {"Description": "Upper end of the 95 % interval."},
    "n_scans": {"Description": "Number of scans that it is computed from."},
    "n_participants": {"Description": "Number of their participants."},
    "note": {"Description": "Why the figure or its interval is missing."},
}
#: Figures of the printed table, and of the text.
_SHOWN = ("presence_kappa", "pattern_kappa", "burden_count_kappa", "count_icc", "lesion_f1")
_OF_MACHINE = ("lesion_sensitivity", "false_positives_per_scan", "calibration_error")


@dataclass(frozen=True, eq=False, kw_only=True)
class Agreement:
    """Everything that is known of the agreement in a cohort.

    Attributes
    ----------
    cohort
        Scans and reviews.
    found
        Comparisons and their figures.
    distance_mm, n_draws, seed, rule
        How it was computed.
    """

    cohort: Cohort
    found: tuple[tuple[Comparison, Sequence[Finding]], ...]
    distance_mm: float
    n_draws: int
    seed: int
    rule: str

    @classmethod
    def compute(
        cls,
        cohort: Cohort,
        *,
        distance_mm: float = 5.0,
        n_draws: int = 2000,
        seed: int = 0,
        rule: str = "majority",
    ) -> Agreement:
        """Compare all raters of a cohort, see :func:`.comparisons` and :func:`.compare`."""
        found = tuple(
            (pair, compare(pair, distance_mm=distance_mm, n_draws=n_draws, seed=seed))
            for pair in comparisons(cohort, rule=rule)
        )
        return cls(
            cohort=cohort,
            found=found,
            distance_mm=distance_mm,
            n_draws=n_draws,
            seed=seed,
            rule=rule,
        )

    def write(self, root: Path) -> Path:
        """Write the table and its data dictionary to an output dataset; return the table."""
        write_json(root / f"{AGREEMENT}.json", self.dictionary())
        return write_text(root / f"{AGREEMENT}.tsv", self.to_tsv())

    def to_tsv(self) -> str:
        """Return the text of the table, one row a figure."""
        return format_tsv(_COLUMNS, ([_cell(v) for v in row] for row in self._rows()))

    def dictionary(self) -> dict[str, Any]:
        """Return the data dictionary of the table."""
        levels = {
            finding.figure.name: finding.figure.definition
            for _, findings in self.found
            for finding in findings
        }
        entries = {name: dict(entry) for name, entry in _COLUMNS.items()}
        entries["figure"]["Levels"] = levels
        entries["value"]["MatchingRule"] = self.matching
        return entries

    def to_json(self) -> dict[str, Any]:
        """Return everything: how it was computed, the figures, what was left out, the text."""
        return {
            "Software": {"Name": "cmbprep", "Version": __version__},
            "ReadWith": self.cohort.versions,
            "Detectors": self.cohort.detectors,
            "MatchingRule": self.matching,
            "PatternRule": self.pattern_rule,
            "MatchDistanceMm": self.distance_mm,
            "Consensus": self.rule,
            "Bootstrap": {"Samples": self.n_draws, "Seed": self.seed, "Level": 0.95},
            "ScansRead": [scan.name for scan in self.cohort.read],
            "Readers": list(self.cohort.readers.values()),
            "LeftOut": self.cohort.left_out,
            "Figures": [dict(zip(_COLUMNS, row, strict=True)) for row in self._rows()],
            "Text": self.text(),
        }

    @property
    def pattern_rule(self) -> str:
        """Rule of the pattern."""
        return ", ".join(self.cohort.pattern_rules)

    @property
    def matching(self) -> str:
        """When two lesions are the same one, in words."""
        return (
            "Lesions of two raters are the same lesion if they are the same automatic lesion or "
            f"candidate, moved by no more than {self.distance_mm:g} mm; the others are matched one "
            "to one and optimally (most pairs, then the smallest sum of distances) where their "
            "centres lie at most as far apart."
        )

    def overview(self) -> list[tuple[str, int, dict[str, str]]]:
        """Return the main figures of all protocols and of all microbleeds, for people.

        Returns
        -------
        list of (raters, number of scans, label -> figure with its interval)
            One item a comparison.
        """
        found = []
        for comparison, whole in self._whole():
            shown = (*_SHOWN, *(_OF_MACHINE if comparison.kind == "machine" else ()))
            texts = {whole[name].figure.label: _figure_text(whole[name]) for name in shown}
            found.append((_raters(comparison), len(comparison.scans), texts))
        return found

    def summary(self) -> str:
        """Return what is printed: a table, what was left out, and the text."""
        lines = []
        for raters, scans, texts in self.overview():
            lines.append(f"{raters}: {_count(scans, 'scan')}")
            lines += [f"  {label:38}{text}" for label, text in texts.items()]
        for reason, names in self.cohort.left_out.items():
            if names:
                lines.append(f"Left out, {reason}: {len(names)} ({_some(names)})")
        return "\n".join([*lines, "", self.text(), ""])

    def text(self) -> str:
        """Return a paragraph that a paper can quote."""
        read = self.cohort.read
        people = len({scan.subject for scan in read})
        readers = list(self.cohort.readers.values())
        names = ", ".join(name for name in self.cohort.detectors if name)
        detector = f"the detector ({names})" if names else "the detector"
        sentences = [
            (
                f"{_count(len(readers), 'reader')} ({', '.join(readers)}) read "
                f"{_count(len(read), 'scan')} of {_count(people, 'participant')} to the end in "
                f"the review of cmbprep {', '.join(self.cohort.versions)}, beginning with the "
                f"lesions that {detector} had listed and adding what it had missed; agreement "
                "with the detector is therefore not that of an independent reading."
            ),
            f"Definite and possible microbleeds count. {self.matching}",
            *(f"Pattern: {PATTERN_RULES[rule]}" for rule in self.cohort.pattern_rules),
            (
                f"Intervals are 95 % percentile intervals of {self.n_draws} bootstrap samples of "
                "participants."
            ),
            *self._results(),
            f"Computed with cmbprep {__version__}.",
        ]
        return " ".join(sentences)

    def _whole(self) -> Iterator[tuple[Comparison, dict[str, Finding]]]:
        """Return the figures of all protocols and of all microbleeds, by their names."""
        for comparison, findings in self.found:
            if comparison.lesions == LESIONS[0]:
                yield (
                    comparison,
                    {item.figure.name: item for item in findings if item.protocol is None},
                )

    def _results(self) -> Iterator[str]:
        for comparison, whole in self._whole():
            known = [name for name in _names_in_text(comparison) if whole[name].value is not None]
            who = f"{_raters(comparison)} ({_count(len(comparison.scans), 'scan')})"
            parts = [
                f"{_in_text(whole[name].figure)} {_figure_text(whole[name])}" for name in known
            ]
            few = f"no figure, because there are fewer than {MIN_PARTICIPANTS} participants"
            yield f"{who}: {', '.join(parts) or few}."

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for comparison, findings in self.found:
            for item in findings:
                yield (
                    comparison.kind,
                    comparison.first,
                    comparison.second,
                    comparison.lesions,
                    self.pattern_rule,
                    item.protocol or "all",
                    item.figure.name,
                    *(_rounded(number) for number in (item.value, item.low, item.high)),
                    item.n_scans,
                    item.n_participants,
                    item.note or None,
                )


def _raters(comparison: Comparison) -> str:
    names = f"{comparison.first} and {comparison.second}"
    return names[0].upper() + names[1:] if names.startswith("consensus (") else names


def _names_in_text(comparison: Comparison) -> tuple[str, ...]:
    more = ("count_difference", "count_limit_low", "count_limit_high")
    machine = _OF_MACHINE if comparison.kind == "machine" else ()
    return (*_SHOWN[:4], *more, *_SHOWN[4:], *machine)


def _in_text(figure: Figure) -> str:
    label = figure.label
    return label[0].lower() + label[1:].replace(", ", " ")


def _figure_text(item: Finding) -> str:
    if item.value is None:
        return f"{MISSING} ({item.note})"
    if item.low is None or item.high is None:
        return f"{_two(item.value)} (no interval)"
    return f"{_two(item.value)} ({_two(item.low)} to {_two(item.high)})"


def _two(number: float) -> str:
    """Write a number with two decimals; zero has no sign, and 1 stands only for all."""
    text = f"{round(number, 2) + 0.0:.2f}"
    return f"{math.floor(number * 1000) / 1000:.3f}" if text == "1.00" and number < 1 else text


def _rounded(number: float | None) -> float | None:
    # -0.0 becomes 0.0
    return None if number is None else round(number, 4) + 0.0


def _cell(value: object) -> str:
    return MISSING if value is None else " ".join(str(value).split())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: Sequence[str], limit: int = 5) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
