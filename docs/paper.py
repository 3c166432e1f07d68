"""Table 1, prevalence, a model and a figure from the group tables of a cohort.

python paper.py OUTPUT_DIR DEST
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from matplotlib.figure import Figure
from scipy import stats

ZONES = ("lobar", "deep", "infratentorial")
PATTERNS = ("strictly lobar", "strictly deep", "mixed", "cerebellar only")


def read_people(folder: Path) -> pd.DataFrame:
    """Read the table of participants, also those without a result."""
    # Quotation marks are text in BIDS tables, n/a is missing, and a site called 01 is not 1.
    return pd.read_csv(
        folder / "group_participants.tsv",
        sep="\t",
        quoting=csv.QUOTE_NONE,
        na_values=["n/a"],
        keep_default_na=False,
        dtype={"site": str},
    )


def table_one(people: pd.DataFrame) -> pd.DataFrame:
    """Describe the participants of each site, and all of them."""

    def column(group: pd.DataFrame) -> dict[str, str]:
        counts = group["n_definite"].dropna()
        present = counts > 0
        low, middle, high = counts.quantile([0.25, 0.5, 0.75])
        return {
            "participants": f"{len(group)}",
            "age, years: mean (SD)": f"{group['age'].mean():.1f} ({group['age'].std():.1f})",
            "hypertension": f"{group['hypertension'].sum():.0f}",
            "hypertension unknown": f"{group['hypertension'].isna().sum()}",
            "definite microbleeds": f"{present.sum()} ({100 * present.mean():.0f} %)",
            "definite microbleeds unknown": f"{group['n_definite'].isna().sum()}",
            "number: median (quartiles)": f"{middle:.0f} ({low:.0f} to {high:.0f})",
            "field strength, T": ", ".join(
                f"{x:g}" for x in sorted(group["MagneticFieldStrength"].dropna().unique())
            ),
        }

    groups = {site: column(group) for site, group in people.groupby("site")}
    return pd.DataFrame({**groups, "all": column(people)})


def prevalence(people: pd.DataFrame) -> pd.DataFrame:
    """Return the share of participants with microbleeds, with exact 95 % intervals."""
    rows = [("any zone", people["n_definite"] > 0, people["n_definite"].notna())]
    for zone in ZONES:
        count = people[f"n_definite_{zone}"]
        rows.append((zone, count > 0, count.notna()))
    pattern = people["pattern_definite"]
    known = pattern.notna() & (pattern != "undetermined")
    rows += [(name, pattern == name, known) for name in PATTERNS]
    lines = []
    for name, positive, counted in rows:
        number, total = int((positive & counted).sum()), int(counted.sum())
        ends = stats.binomtest(number, total).proportion_ci(method="exact")
        lines.append((name, number, total, number / total, ends.low, ends.high))
    columns = ["microbleeds", "participants with", "of", "share", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def rate_ratios(people: pd.DataFrame) -> pd.DataFrame:
    """Fit the number of microbleeds, as ``cmbprep group --model`` does."""
    formula = "n_definite ~ age + hypertension + C(site)"
    fit = smf.negativebinomial(formula, people).fit(maxiter=1000, disp=0)
    terms = fit.params.index.drop(["Intercept", "alpha"])
    df = fit.nobs - len(terms) - 1
    # The dispersion is estimated too, and comes out too small: the errors are made wider for it.
    reach = stats.t.ppf(0.975, df) * np.sqrt(fit.nobs / df) * fit.bse[terms]
    return pd.DataFrame(
        {
            "rate ratio": np.exp(fit.params[terms]),
            "low": np.exp(fit.params[terms] - reach),
            "high": np.exp(fit.params[terms] + reach),
        }
    )


def draw_prevalence(shares: pd.DataFrame) -> Figure:
    """Draw the prevalences with their intervals."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    ends = [shares["share"] - shares["low"], shares["high"] - shares["share"]]
    axes.errorbar(100 * shares["share"], shares["microbleeds"], xerr=100 * np.array(ends), fmt="o")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("participants, % (exact 95 % interval)")
    return figure


def main() -> None:
    """Write the tables and the figure of a paper."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", type=Path, help="where cmbprep has written")
    parser.add_argument("dest", type=Path, help="where the tables and the figure go")
    arguments = parser.parse_args()
    everyone, dest = read_people(arguments.output_dir), arguments.dest
    dest.mkdir(parents=True, exist_ok=True)
    everyone["status"].value_counts().to_csv(dest / "status.tsv", sep="\t")
    people = everyone[everyone["status"] == "complete"]
    shares = prevalence(people)
    table_one(people).to_csv(dest / "table1.tsv", sep="\t")
    shares.to_csv(dest / "prevalence.tsv", sep="\t", index=False)
    rate_ratios(people).to_csv(dest / "rate_ratios.tsv", sep="\t")
    draw_prevalence(shares).savefig(dest / "prevalence.svg")


if __name__ == "__main__":
    main()
