"""The whole way on people nobody has seen: simulate, process, evaluate, and make the table.

    python benchmarks/recipe.py DEST [--detector NAME] [--write-docs]

It runs the commands that a user would type, shows each, and leaves out what is done: people
that DEST holds are kept, and cmbprep itself computes only what another detector changes.
``--write-docs`` puts the table into the documentation. All lesions are simulated.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbprep.config import available_cpus

PROTOCOLS = ("clinical-2d-1.5t", "clinical-2d-3t", "ukb-swi")
SEED = 9300
PARTICIPANTS = 12
MIN_DIAMETER_MM = 2
MATCH_MM = 5
TABLE = Path(__file__).resolve().parents[1] / "docs" / "validation" / "recipe-table.md"

PROGRAMS = {"cmbprep": "cmbprep", "cmbprep-tools": "cmbprep.lab.cli"}
SOME_FAILED = 1

FIGURES = {
    "sensitivity": "Sensitivity",
    "precision": "Precision",
    "f1": "F1",
    "f1_scan_mean": "F1 of a scan, mean",
    "fp_per_scan": "False positives per scan",
    "fp_per_scan_without_lesions": "False positives per scan without lesions",
    "ece": "Expected calibration error",
    "zone_agreement": "Zone right, of those found",
    "region_agreement": "Region right, of those found",
    "volume_error_median": "Error of the volume, median",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the table is of.

    Parameters
    ----------
    detector, detector_version, threshold
        As the group table tells them.
    participants, seed, protocols
        What was simulated.
    """

    detector: str
    detector_version: str
    threshold: str
    participants: int
    seed: int
    protocols: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest", type=Path, help="folder of the data, the results and the figures")
    parser.add_argument("--participants", type=int, default=PARTICIPANTS, metavar="N")
    parser.add_argument("--protocol", nargs="+", default=list(PROTOCOLS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--nprocs", type=int, default=available_cpus(), metavar="N")
    parser.add_argument("--detector", help="as of cmbprep (default: cmbprep's own)")
    parser.add_argument("--write-docs", action="store_true", help=f"write {TABLE.name}")
    args = parser.parse_args(arguments)
    data, out = args.dest / "data", args.dest / "out"

    simulate(data, args)
    chosen = ("--detector", args.detector) if args.detector else ()
    status = run("cmbprep", data, out, "participant", *chosen, "--nprocs", args.nprocs)
    run("cmbprep", data, out, "group", may_fail=False)
    used = read_run(out / "group_cmb.tsv", args)
    evaluation = evaluate(data, out, args.dest / f"evaluation-{Path(used.detector).stem}")

    text = make_page(evaluation, used)
    print(f"\n{text}", end="")
    if status == SOME_FAILED:
        print("Some scans failed; nothing was written into the documentation.", file=sys.stderr)
    elif args.write_docs:
        TABLE.write_text(text, encoding="utf-8")
        print(f"Written: {TABLE}")
    return status


def run(program: str, *arguments: object, may_fail: bool = True) -> int:
    """Show a command as one would type it, and run it with this interpreter.

    A status of 1 is given back where it is allowed (some scans failed, the others are complete);
    any other failure ends the recipe.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ {shlex.join([program, *words])}", flush=True)
    status = subprocess.run([sys.executable, "-m", PROGRAMS[program], *words], check=False)
    if status.returncode and not (may_fail and status.returncode == SOME_FAILED):
        raise SystemExit(status.returncode)
    return status.returncode


def simulate(data: Path, args: argparse.Namespace) -> None:
    """Simulate the people, unless they are there."""
    readme = data / "README.md"
    if readme.exists():
        found = people_of(readme.read_text(encoding="utf-8"))
        wanted = (args.participants, args.seed, tuple(args.protocol))
        if found != wanted:
            raise SystemExit(f"{data} holds other people: {found}, not {wanted}")
        print(f"# {data} is used again")
        return
    run(
        *("cmbprep-tools", "simulate", data, "--participants", args.participants),
        *("--seed", args.seed, "--protocol", *args.protocol, "--nprocs", args.nprocs),
        may_fail=False,
    )


def people_of(readme: str) -> tuple[int, int, tuple[str, ...]] | None:
    """Read number of people, seed and protocols in the README of a simulated dataset."""
    made = re.search(r"participants (\d+), seed (\d+), protocols:\n((?:\s*- .*)+)", readme)
    if made is None:
        return None
    protocols = re.findall(r"^- ([^:\s]+):", made[3].strip(), re.MULTILINE)
    return int(made[1]), int(made[2]), tuple(protocols)


def read_run(table: Path, args: argparse.Namespace) -> Run:
    """Read which detector made the results; all scans must have the same."""
    with open(table, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    columns = ("detector", "detector_version", "threshold")
    used = {tuple(row[name] for name in columns) for row in rows} - {("n/a",) * len(columns)}
    if len(used) != 1:
        raise SystemExit(f"{table}: not one detector but {sorted(used)}")
    detector, version, threshold = used.pop()
    return Run(
        detector=detector,
        detector_version=version,
        threshold=threshold,
        participants=args.participants,
        seed=args.seed,
        protocols=tuple(args.protocol),
    )


def evaluate(data: Path, out: Path, folder: Path) -> dict[str, Any]:
    """Compare with the truth; give the figures."""
    figures = folder / "evaluation.json"
    run(
        *("cmbprep-tools", "evaluate", out, data / "derivatives" / "truth"),
        *("--match", "centroid", "--distance", MATCH_MM, "--min-diameter", MIN_DIAMETER_MM),
        *("--json", figures, "--out", folder),
        may_fail=False,
    )
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return content


def make_page(evaluation: dict[str, Any], used: Run) -> str:
    """Make the Markdown that the documentation includes.

    Parameters
    ----------
    evaluation
        The JSON of ``cmbprep-tools evaluate``.
    used
        What it is of.
    """
    counts, splits = evaluation["counts"], evaluation["splits"]
    everything = {
        "scans": counts["scans"],
        "lesions": counts["true_lesions"],
        **evaluation["figures"],
    }
    parts = [
        describe(evaluation, used),
        figure_table({"all": everything, **splits.get("protocol", {})}),
        f"What the {counts['false_positives']} false positives lie on:",
        mimic_table(evaluation["false_positives"]),
    ]
    return "\n\n".join(parts) + "\n"


def describe(evaluation: dict[str, Any], used: Run) -> str:
    """Return a paragraph that describes the metrics."""
    version = "" if used.detector_version == "n/a" else f" (version {used.detector_version})"
    draws = evaluation["bootstrap"]["draws"]
    return (
        f"{evaluation['source']['prediction']}, detector `{used.detector}`{version}, probability "
        f"from {used.threshold}; {used.participants} simulated people, seed {used.seed}, protocols "
        f"{', '.join(f'`{name}`' for name in used.protocols)}. Rule: "
        f"`{evaluation['rule']['short']}`, of the true lesions those that are visible. In "
        f"brackets: 95 % intervals, {draws} bootstrap draws of people."
    )


def figure_table(groups: dict[str, dict[str, Any]]) -> str:
    """Make a table with a column for each group of scans."""
    rows: list[list[str]] = [["", *groups]]
    rows.append(["Scans", *(str(group["scans"]) for group in groups.values())])
    rows.append(["True lesions", *(str(group["lesions"]) for group in groups.values())])
    for name, label in FIGURES.items():
        rows.append([label, *(figure(group[name]) for group in groups.values())])
    return markdown(rows)


def figure(entry: dict[str, float | None]) -> str:
    """Show a figure with its interval; ``n/a`` where it is undefined."""
    value, low, high = entry["value"], entry["low"], entry["high"]
    if value is None:
        return "n/a"
    if low is None or high is None:
        return f"{value:.2f}"
    return f"{value:.2f}<br>({low:.2f}–{high:.2f})"


def mimic_table(origins: list[dict[str, Any]]) -> str:
    """Make a table of what caused false positives, the worst first."""
    rows = [["lies on", "false positives", "share", "such mimics in the scans", "of them marked"]]
    for row in sorted(origins, key=lambda row: (-row["false_positives"], row["origin"])):
        if row["false_positives"]:
            counted = ["" if row[n] is None else str(row[n]) for n in ("mimics", "mimics_marked")]
            rows.append(
                [
                    row["origin"].replace("_", " "),
                    str(row["false_positives"]),
                    f"{row['share']:.2f}",
                    *counted,
                ]
            )
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Make a Markdown table; the first row is the head."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
