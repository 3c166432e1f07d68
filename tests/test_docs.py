"""The documentation says what the program does: names, options and links are compared with it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cmbprep.cli.parser import build_parser

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
BIBLIOGRAPHY = json.loads((REPOSITORY / "cmbprep/data/bibliography.json").read_text("utf-8"))

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix()
)


def _read(name: str) -> str:
    return (REPOSITORY / name).read_text("utf-8")


def _command_lines(text: str) -> list[str]:
    """Return the commands in fenced blocks, with continued lines joined."""
    blocks = re.findall(r"^```(?:console|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


def test_quick_start_is_two_commands_that_make_knows() -> None:
    section = re.search(r"^## Quick start\n(.*?)^## ", _read("README.md"), re.M | re.S)
    assert section is not None
    assert _command_lines(section[1]) == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", _read("Makefile"), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


@every_page
def test_links_between_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(
        r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", page.read_text("utf-8")
    )
    local = [one or other for one, other in targets if "://" not in (one or other)]
    missing = [target for target in local if not (page.parent / target.partition("#")[0]).exists()]
    assert missing == []


@every_page
def test_options_in_examples_exist(page: Path) -> None:
    known = set(build_parser()._option_string_actions)
    unknown = []
    for line in _command_lines(page.read_text("utf-8")):
        # What follows the program's name; a container's own options stand before it.
        called = re.search(r"(?:^|[\s/])cmbprep(?:\.sif)?\s+(?!-)(.*)", line)
        if called and "participant" in called[1]:
            unknown += [word for word in re.findall(r"--[a-z-]+", called[1]) if word not in known]
    assert unknown == []


def _shape(name: str) -> str:
    """Return a file name with every placeholder as ``*``, without its extension."""
    return (
        re.sub(r"\{\w+\}|<\w+>|T1w(?=_mode)|(?<=from-)T1w", "*", name).partition(".")[0].rstrip("*")
    )


def test_every_output_file_is_explained() -> None:
    table = json.loads(_read("cmbprep/data/outputs.json"))
    page = {_shape(name) for name in re.findall(r"`(<src>[^`]*)`", _read("docs/outputs.md"))}
    wanted = {_shape(entry["file"]) for entries in table.values() for entry in entries.values()}
    unexplained = sorted(wanted - page)
    assert unexplained == []


def test_names_of_outputs_are_those_that_are_written() -> None:
    from cmbprep.bids.model import parse_name
    from cmbprep.outputs.names import MARKS, output_stem

    rows = re.findall(r"^\| `(sub-[^`]+)` \| `(sub-[^`]+)` \|$", _read("docs/outputs.md"), re.M)
    parsed = [(parse_name(Path(f"{source}.nii.gz")), stem) for source, stem in rows]
    assert {name.suffix for name, _ in parsed} == set(MARKS) - {"SWI"}
    for name, stem in parsed:
        assert output_stem(name.entities, name.suffix) == stem


def test_statuses_are_those_of_the_table_of_scans() -> None:
    from cmbprep.reports.results import STATUSES

    table = _read("docs/outputs.md").partition("| status | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| \S", table, re.MULTILINE) == list(STATUSES)


def test_every_key_of_a_network_is_explained() -> None:
    from cmbprep.detectors.contract import KEYS, NetworkContract

    rows = re.findall(
        r"^\| `cmbprep\.(\w+)` \| (\S[^|]*) \|", _read("docs/plugins.md"), re.MULTILINE
    )
    assert [key for key, _ in rows] == list(KEYS)
    for key, default in rows:
        value = getattr(NetworkContract(), key)
        if value is not None:
            text = ",".join(value) if isinstance(value, tuple) else f"{value}"
            assert default.strip() in (f"`{text}`", f"`{text.removesuffix('.0')}`"), key


def test_architecture_lists_every_part_with_its_purpose() -> None:
    import sys

    sys.path.append(str(REPOSITORY / "docs/_ext"))
    from from_source import packages

    from tests.test_layers import LAYERS

    assert "```{packages}" in _read("docs/architecture.md")
    found = dict(packages())
    assert tuple(found) == LAYERS
    assert [name for name, purpose in found.items() if not 20 < len(purpose) < 100] == []


def test_the_page_on_reviews_lists_every_key() -> None:
    import sys

    sys.path.append(str(REPOSITORY / "docs/_ext"))
    from from_source import review_keys

    assert "```{review-keys}" in _read("docs/review.md")
    table = (
        _read("cmbprep/review/page/keys.js").partition("const ACTIONS = {")[2].partition("};")[0]
    )
    keys = [key for group in review_keys().values() for key, _ in group]
    assert len(set(keys)) == len(keys) == table.strip().count("\n") + 1
    # Keys that the text names.
    named = re.findall(r"`((?:Ctrl\+|Shift\+)?[A-Z0-9?]|Enter)`", _read("docs/review.md"))
    assert len(named) > 10 and set(named) <= set(keys)


def test_architecture_gives_a_reason_for_every_dependency() -> None:
    page = _read("docs/architecture.md")
    table = page[page.index("\n## Dependencies") :]
    rows = re.findall(r"^\| ([a-z][a-z0-9, -]*) \| \S", table, re.MULTILINE)
    explained = {name.strip() for row in rows for name in row.split(",")} - {"package"}
    project = tomllib.loads(_read("pyproject.toml"))["project"]
    declared = {Requirement(text).name for text in project["dependencies"]}
    assert explained == declared


def test_bibliography_is_well_formed() -> None:
    keys = [work["key"] for work in BIBLIOGRAPHY]
    assert len(set(keys)) == len(keys)
    for work in BIBLIOGRAPHY:
        assert set(work) == {"key", "text", "doi"}
        assert work["text"].endswith(".")
        assert work["doi"] is None or re.fullmatch(r"10\.\d{4,9}/\S+", work["doi"])


def test_works_that_pages_cite_are_in_the_bibliography() -> None:
    keys = {work["key"] for work in BIBLIOGRAPHY}
    cited = {
        key.strip()
        for page in PAGES
        for keys_of_role in re.findall(r"\{cite\}`([^`]+)`", page.read_text("utf-8"))
        for key in keys_of_role.split(",")
    }
    assert cited
    assert sorted(cited - keys) == []


def test_works_that_reports_cite_are_in_the_bibliography() -> None:
    keys = {work["key"] for work in BIBLIOGRAPHY}
    sentences = json.loads(_read("cmbprep/reports/spec.json"))["methods"]
    cited = {key for sentence in sentences for key in sentence.get("cite", ())}
    assert cited
    assert sorted(cited - keys) == []
