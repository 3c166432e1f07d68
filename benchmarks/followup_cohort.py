"""A simulated cohort from scans to a model, compared with what was put in.

    cmbprep-tools simulate BIDS --participants 60 --sites 3 --visits 2 --seed 1 \
        --protocol clinical-2d-1.5t clinical-2d-3t gre3d-3t
    cmbprep BIDS OUT participant
    cmbprep BIDS OUT group
    python benchmarks/followup_cohort.py BIDS OUT [--formula FORMULA ...]

Prints

- what became of the lesions of each pair of visits, by protocol, as ``benchmarks/followup.py``;
- new microbleeds per person-year by hypertension: as the tables have it, of those that were put in
  and are visible, and of all that were put in;
- the coefficients of models of the counts as listed, of the visible microbleeds and of all that
  were put in. The people are the same: what differs is the work of the detector.

All people and microbleeds are simulated. ``new`` of the truth is what the second visit has more
than the first.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from followup import Outcome, Told, Truth, judge_pair, print_outcomes

from cmbprep.followup.status import Fate
from cmbprep.followup.table import FollowedLesion, read_followup
from cmbprep.group.models import fit_models
from cmbprep.group.models.formula import parse_model
from cmbprep.group.models.tables import participants_frame
from cmbprep.lesions import Lesion, read_lesions

FORMULAS = (
    "n_any ~ age + hypertension + C(site)",
    "n_new_any ~ hypertension + offset(log(follow_up_years))",
)


@dataclass(frozen=True)
class Cohort:
    """A simulated dataset and its results."""

    bids: Path
    out: Path

    def rows(self, name: str) -> list[dict[str, str]]:
        """Read a table of the group level."""
        with (self.out / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream, delimiter="\t"))

    @cached_property
    def participants(self) -> list[dict[str, str]]:
        """The table of participants."""
        return self.rows("group_participants.tsv")

    @cached_property
    def pairs(self) -> list[dict[str, str]]:
        """The table of pairs of visits."""
        return self.rows("group_followup.tsv")

    def truth(self, scan: str) -> tuple[Truth, ...]:
        """Read what was put into a scan: microbleeds, and what only looks like them."""
        person, visit, _ = scan.split("_")
        folder = self.bids / "derivatives" / "truth" / person / visit / "anat"
        found = []
        for kind in ("CMB", "mimics"):
            path = folder / f"{person}_{visit}_seg-{kind}_dseg.tsv"
            if kind == "mimics" and not path.exists():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                for number, row in enumerate(csv.DictReader(stream, delimiter="\t"), start=1):
                    # Vessels are no mimics of their own, and keep no number between the visits.
                    known = row["person_index"] != "n/a"
                    found.append(
                        Truth(
                            number=int(row["person_index"]) if known else -number,
                            kind=row["kind"],
                            centre=(float(row["x"]), float(row["y"]), float(row["z"])),
                            diameter=float(row["diameter_mm"]),
                            visible=row["visible"] == "true",
                        )
                    )
        return tuple(found)

    def told(self, scan: str, protocol: str) -> Told:
        """Read what is listed in a scan and what was put in."""
        person, visit, _ = scan.split("_")
        path = self.out / person / visit / "anat" / f"{person}_{visit}_seg-CMB_dseg.tsv"
        lesions = tuple(one for one in read_lesions(path) if one.susceptibility != "diamagnetic")
        return Told(protocol, lesions, self.truth(scan))

    def fates(self, pair: dict[str, str], told: tuple[Told, Told]) -> list[Fate]:
        """Read what became of the lesions of a pair."""
        person, first, second = (
            pair[name] for name in ("participant_id", "session_first", "session_second")
        )
        label = first.removeprefix("ses-")
        name = f"{person}_{second}_seg-CMB_desc-followupses{label}_dseg.tsv"
        rows = read_followup(self.out / person / second / "anat" / name)
        listed = [{one.index: one for one in side.lesions} for side in told]
        return [_fate(row, listed) for row in rows]

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what is counted of each complete pair."""
        protocols = {row["participant_id"]: row["protocol"] for row in self.participants}
        for pair in self.pairs:
            if pair["status"] != "complete":
                print(f"not compared: {pair['participant_id']}: {pair['status']}, {pair['reason']}")
                continue
            protocol = protocols[pair["participant_id"]]
            first, second = (self.told(pair[f"scan_{at}"], protocol) for at in ("first", "second"))
            fates = self.fates(pair, (first, second))
            name = pair["participant_id"]
            yield judge_pair(name, (first, second), fates, "ok", changed=False)


def _fate(row: FollowedLesion, listed: list[dict[int, Lesion]]) -> Fate:
    first, second = (
        None if index is None else side[index]
        for index, side in zip(row.indices, listed, strict=True)
    )
    return Fate(first=first, second=second, status=row.status, reason=row.reason)


def _bleeds(truth: tuple[Truth, ...], *, visible: bool) -> set[int]:
    return {
        one.number for one in truth if one.kind == "microbleed" and (one.visible or not visible)
    }


def _appeared(cohort: Cohort, *, visible: bool) -> dict[str, set[int]]:
    """Return the microbleeds of each participant that the second visit has more than the first."""
    found = {}
    for pair in cohort.pairs:
        if pair["status"] != "complete":
            continue
        before, after = (cohort.truth(pair[f"scan_{at}"]) for at in ("first", "second"))
        appeared = _bleeds(after, visible=visible) - _bleeds(before, visible=False)
        found[pair["participant_id"]] = appeared
    return found


def print_rates(cohort: Cohort) -> None:
    """Print new microbleeds per person-year, in the tables and of those that were put in."""
    risk = {row["participant_id"]: row["hypertension"] for row in cohort.participants}
    visible, everything = (_appeared(cohort, visible=seen) for seen in (True, False))
    print("\nnew per person-year     pairs  years  listed         visible, true  all, true")
    for level in sorted(set(risk.values())):
        pairs = [
            pair
            for pair in cohort.pairs
            if pair["status"] == "complete" and risk[pair["participant_id"]] == level
        ]
        years = sum(float(pair["years_between"]) for pair in pairs)
        counts = [
            sum(int(pair["n_new_any"]) for pair in pairs),
            *(
                sum(len(found[pair["participant_id"]]) for pair in pairs)
                for found in (visible, everything)
            ),
        ]
        shown = "  ".join(f"{count:4d} ({count / years:.2f})  " for count in counts)
        print(f"hypertension {level:10s} {len(pairs):5d}  {years:5.1f}  {shown}")


def print_models(cohort: Cohort, formula: str) -> None:
    """Print a model of the counts as listed, and of those that were put in."""
    request = parse_model(formula)
    outcome = request.outcome.column
    listed = participants_frame([*cohort.participants[0]], cohort.participants)
    counts: dict[str, pd.Series[Any]] = {"as listed": listed[outcome]}
    for name, visible in (("visible, true", True), ("all, true", False)):
        known = _appeared(cohort, visible=visible)
        if not outcome.startswith("n_new"):
            known = {
                row["participant_id"]: _bleeds(cohort.truth(row["baseline_scan"]), visible=visible)
                for row in cohort.participants
            }
        counts[name] = listed["participant_id"].map({k: float(len(v)) for k, v in known.items()})
    print(f"\n{formula}")
    for name, values in counts.items():
        # Where a person has no count, the truth has none either: the same people are compared.
        table = listed.assign(**{outcome: values.where(listed[outcome].notna())})
        (model,) = fit_models(table, [request])
        print(
            f"  {name}: {int(table[outcome].sum())} in {len(model.design.y)} people, {model.kind}"
        )
        for row in model.rows:
            if row["role"] == "term" and row["ratio"] is not None:
                print(
                    f"    {row['label']:30s} {row['ratio']:.2f} "
                    f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
                )


def main() -> int:
    """Compare the results of a simulated cohort with what was put in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids", type=Path, help="dataset of cmbprep-tools simulate")
    parser.add_argument("out", type=Path, help="its results, of both levels")
    parser.add_argument("--formula", nargs="+", default=FORMULAS)
    arguments = parser.parse_args()
    cohort = Cohort(arguments.bids, arguments.out)
    outcomes = list(cohort.outcomes())
    print_outcomes(outcomes)
    for one in outcomes:
        if one.false_kinds or one.new_other:
            print(one.pair, one.protocols[0], one.false_kinds, one.new_other)
    print_rates(cohort)
    for formula in arguments.formula:
        print_models(cohort, formula)
    return 0


if __name__ == "__main__":
    sys.exit(main())
