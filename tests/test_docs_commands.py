"""Every command in the documentation is tried, or marked as an example with a reason.

The mark is an HTML comment on the line above the block: ``<!-- example: needs Docker -->``.
The script of ``docs/cluster.md`` is run in :mod:`tests.test_docs_slurm`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cmbprep.cli.main import main
from cmbprep.cli.parser import build_parser, parse_settings
from cmbprep.lab import cli as tools
from tests.bidsdata import add_image, make_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    REPOSITORY / "README.md",
    *sorted(p for p in (REPOSITORY / "docs").rglob("*.md") if "_build" not in p.parts),
]
#: Scripts that a page includes, and that are run in a test of their own.
SCRIPTS = {"docs/cmbprep_slurm.sh"}

_BLOCK = re.compile(
    r"(?P<mark>^ *<!-- *example: *(?P<reason>.*?) *-->\n)?"
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(REPOSITORY).as_posix()}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command, without comments, with continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [command for command in words if command]


def _blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("fence")) + 1,
            match["language"].strip(),
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            match["reason"],
        )
        for match in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in _blocks(page)]
MARKED = [block for block in BLOCKS if block.reason is not None]
TRIED = [block for block in BLOCKS if block.reason is None]


def _of(language: str) -> list[Block]:
    return [block for block in TRIED if block.language == language]


def _commands(program: str) -> list[tuple[Block, list[str]]]:
    return [
        (block, command)
        for block in _of("console")
        for command in block.commands
        if command[0] == program
    ]


def each(program: str) -> pytest.MarkDecorator:
    """Run a test for each command of a program in the pages."""
    found = _commands(program)
    assert found, f"no page shows {program}"
    return pytest.mark.parametrize(
        ("block", "command"),
        found,
        ids=[f"{block.name} {' '.join(command)[:60]}" for block, command in found],
    )


# --- what there is ---------------------------------------------------------------------

PROGRAMS = ("cmbprep", "cmbprep-tools", "make", "python")


def _is_known(block: Block) -> bool:
    """Return whether a test in this file tries the block, or it holds no command."""
    if block.language == "console":
        return all(command[0] in PROGRAMS for command in block.commands)
    return block.language in {"json", "text"} or block.language.startswith("{")


def test_every_block_is_tried_or_marked() -> None:
    assert [block.name for block in TRIED if not _is_known(block)] == []


def test_marks_have_a_reason_and_are_needed() -> None:
    assert MARKED
    assert [block.name for block in MARKED if len(block.reason or "") < 10] == []
    assert [block.name for block in MARKED if _is_known(block)] == []


def test_no_mark_stands_alone() -> None:
    marks = sum(page.read_text("utf-8").count("<!-- example:") for page in PAGES)
    assert marks == len(MARKED)


def test_scripts_have_a_test_of_their_own() -> None:
    scripts = (REPOSITORY / "docs").glob("*.sh")  # the built pages hold copies
    assert {script.relative_to(REPOSITORY).as_posix() for script in scripts} == SCRIPTS
    assert _of("bash") == []


# --- cmbprep ---------------------------------------------------------------------------


def _site_model(path: Path) -> Path:
    from cmbprep.detectors.calibration import LastStage, SiteModel
    from cmbprep.detectors.learned import LearnedDetector

    model = SiteModel(LearnedDetector().sha256, LastStage(1.0, 0.0), {})
    path.write_text(json.dumps(model.to_json()))
    return path


def _detector(name: str, folder: Path) -> str:
    """Make a file of the kind that a command names."""
    if name.endswith(".onnx"):
        from tests.detectors.onnxmodels import identity

        return str(identity(folder / Path(name).name, {}))
    return str(_site_model(folder / Path(name).name)) if name.endswith(".json") else name


def _replace_paths(command: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """Return a command with paths that exist, and the participants that it is for."""
    given = build_parser().parse_args(command[1:])
    labels = given.participants or ["01"]
    bids = make_dataset(folder / "bids")
    for label in labels:
        add_image(bids, f"sub-{label}/anat/sub-{label}_T2starw.nii.gz")
        add_image(bids, f"sub-{label}/anat/sub-{label}_T1w.nii.gz", sidecar=None)
    replaced = {str(given.bids_dir): str(bids), str(given.output_dir): str(folder / "out")}
    for text in given.derivatives:
        name, equals, _ = text.partition("=")
        other = make_dataset(folder / name)
        for label in labels:
            (other / f"sub-{label}/anat").mkdir(parents=True)
        replaced[text] = f"{name}{equals}{other}"
    replaced[given.detector] = _detector(given.detector, folder)
    # A path may be written with a slash at its end.
    return [
        replaced.get(word, replaced.get(word.rstrip("/"), word)) for word in command[1:]
    ], labels


@each("cmbprep")
def test_cmbprep_plans_what_the_page_asks_for(
    block: Block, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, labels = _replace_paths(command, tmp_path)
    assert str(tmp_path / "bids") in arguments
    # Both read results, and there are none.
    if "group" in arguments or "--reports-only" in arguments:
        assert parse_settings(arguments).output_dir == tmp_path / "out"
        return
    assert main([*arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("fail", "skip"))] == []
    for label in labels:
        assert any(line.startswith(f"scan sub-{label}_T2starw: ") for line in lines)
        assert any(line.startswith("run") and f"sub-{label}" in line for line in lines)


# --- the other programs ----------------------------------------------------------------


@each("cmbprep-tools")
def test_tools_take_the_arguments(block: Block, command: list[str]) -> None:
    assert tools.build_parser().parse_args(command[1:]).command == command[1]


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M))


@each("make")
def test_make_has_the_target(block: Block, command: list[str]) -> None:
    assert set(command[1:]) <= _make_targets()


#: Runs scripts up to the point where their arguments are parsed. One process for all: their
#: heavy imports are made once, and none of their modules gets among those of the tests.
_PARSE = """
import argparse, io, json, os, runpy, sys
from contextlib import redirect_stderr, redirect_stdout

class Parsed(Exception): pass

parse = argparse.ArgumentParser.parse_args
def parse_only(self, args=None, namespace=None):
    parse(self, args, namespace)
    raise Parsed
argparse.ArgumentParser.parse_args = parse_only

for script, *arguments in json.load(sys.stdin):
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    told, verdict = io.StringIO(), "it never parses its arguments"
    try:
        with redirect_stderr(told), redirect_stdout(told):
            runpy.run_path(script, run_name="__main__")
    except Parsed:
        verdict = "ok"
    except SystemExit:
        verdict = told.getvalue()
    print(json.dumps(verdict))
"""


def _script(block: Block, name: str) -> Path:
    """Find a script, or a folder of them, from the root of the repository or beside the page."""
    places = (REPOSITORY / name, block.page.parent / name)
    return next(p for p in places if p.is_file() or (p / "__main__.py").is_file())


def test_scripts_take_the_arguments() -> None:
    found = _commands("python")
    calls = [[str(_script(block, words[1])), *words[2:]] for block, words in found]
    ran = subprocess.run(
        [sys.executable, "-c", _PARSE],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    verdicts = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(verdicts) == len(calls) > 10
    wrong = {
        f"{block.name} {' '.join(words)}": verdict
        for (block, words), verdict in zip(found, verdicts, strict=True)
        if verdict != "ok"
    }
    assert wrong == {}


# --- other languages -------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "docs").glob("*.py")), ids=lambda path: path.name
)
def test_python_is_valid(path: Path) -> None:
    compile(path.read_text("utf-8"), path.name, "exec")


@pytest.mark.parametrize("block", _of("json"), ids=lambda block: block.name)
def test_json_is_valid(block: Block) -> None:
    assert json.loads(block.text)


def test_the_plugin_file_of_the_cluster_page_is_accepted(tmp_path: Path) -> None:
    from cmbprep.running.plugin_file import read_plugin

    (block,) = [block for block in _of("json") if block.page.name == "cluster.md"]
    path = tmp_path / "plugin.json"
    path.write_text(block.text)
    plugin = read_plugin(path, nprocs=1, mem_gb=None)
    assert (plugin.name, plugin.arguments["n_procs"]) == ("MultiProc", 8)


# --- commands inside sentences ---------------------------------------------------------


def _in_sentences() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        text = _BLOCK.sub("", page.read_text("utf-8"))
        for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
            words = span.split()
            if words[0] in PROGRAMS and len(words) > 1:
                found.append((f"{page.relative_to(REPOSITORY).as_posix()}: {span}", words))
    return found


def _sub_parsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = [
        action
        for action in tools.build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(action.choices)


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in _in_sentences()])
def test_commands_in_sentences_exist(words: list[str]) -> None:
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if words[0] == "make":
        assert set(words[1:]) <= _make_targets()
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] == "python":
        assert (REPOSITORY / words[1]).is_file()
    elif words[0] == "cmbprep-tools":
        assert options <= set(_sub_parsers()[words[1]]._option_string_actions)
    else:
        assert options <= set(build_parser()._option_string_actions)
