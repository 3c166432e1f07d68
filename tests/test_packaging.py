"""What a person installs: versions, commands, data files, and how fast the command answers."""

from __future__ import annotations

import ast
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cmbprep

# Each takes from a quarter of a second to four seconds to import.
HEAVY = {
    *("ants", "bids", "matplotlib", "nibabel", "nilearn", "nipype", "onnxruntime", "pandas"),
    *("onnx", "scipy", "torch"),
}


def _pyproject(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


def _pins(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def _tracked_files(repository: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("the tests do not run from a git checkout")
    return [repository / name for name in listed.stdout.split("\0") if name]


def test_version_is_the_same_everywhere(repository: Path) -> None:
    version = cmbprep.__version__
    assert importlib.metadata.version("cmbprep") == version
    assert f"\nversion: {version}\n" in (repository / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## (\S+)", (repository / "CHANGES.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


@pytest.mark.parametrize("command", ["cmbprep", "cmbprep-tools"])
def test_console_script_starts(command: str) -> None:
    script = Path(sys.executable).parent / command
    if not script.is_file():
        pytest.skip("cmbprep is not installed in this environment: pip install -e .")
    answer = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"usage: {command} ")


@pytest.mark.parametrize("module", ["cmbprep.cli.main", "cmbprep.lab.cli"])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["--no-such-option"]], ids=lambda given: given[0]
)
def test_no_heavy_module_is_loaded_for_an_answer(module: str, arguments: list[str]) -> None:
    code = (
        "import importlib, sys\n"
        f"main = importlib.import_module({module!r}).main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('LOADED', *sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.stdout.splitlines()[-1:] == ["LOADED"], answer.stdout + answer.stderr


def test_telemetry_of_onnxruntime_is_off_whatever_is_set(repository: Path) -> None:
    code = "import os, cmbprep; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given in ({}, {"ORT_DISABLE_TELEMETRY": "0"}):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | given,
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == "1\n"
    assert " ORT_DISABLE_TELEMETRY=1 " in (repository / "Dockerfile").read_text("utf-8")


def test_every_pin_satisfies_what_the_project_asks_for(repository: Path) -> None:
    pins = _pins(repository)
    project = _pyproject(repository)["project"]
    # PyTorch comes in builds for each kind of machine; only training needs it.
    extras = [v for k, v in project["optional-dependencies"].items() if k != "train"]
    asked = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    for requirement in map(Requirement, asked):
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} against {pinned}"


def test_pins_are_closed_under_dependencies(repository: Path) -> None:
    """Whatever the installed packages need is pinned too, so that no release floats."""
    pins = _pins(repository)
    project = _pyproject(repository)["project"]
    todo = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    seen: set[str] = set()
    while todo - seen:
        name = (todo - seen).pop()
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.add(canonicalize_name(requirement.name))
    assert sorted(seen - set(pins)) == []


def test_imports_are_declared_dependencies(repository: Path) -> None:
    """Each third-party package that the run-time code imports is named in pyproject.toml."""
    project = _pyproject(repository)["project"]
    needed = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    extra = project["optional-dependencies"]["train"]
    training = needed | {canonicalize_name(Requirement(text).name) for text in extra}
    providers = importlib.metadata.packages_distributions()
    undeclared = set()
    for source in (repository / "cmbprep").rglob("*.py"):
        named = training if "training" in source.parts else needed
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for top in {module.partition(".")[0] for module in modules}:
                if top in sys.stdlib_module_names or top == "cmbprep":
                    continue
                if not named & set(map(canonicalize_name, providers.get(top, [top]))):
                    undeclared.add(f"{source.relative_to(repository)} imports {top}")
    assert sorted(undeclared) == []


def test_wheel_holds_every_file_of_the_package(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(repository).as_posix()
        for path in _tracked_files(repository)
        if path.is_relative_to(repository / "cmbprep") and path.is_file()
    }
    assert wanted
    assert sorted(wanted - held) == []
    assert any(name.endswith("licenses/LICENSE") for name in held)
    megabytes = wheel.stat().st_size / 1e6
    assert megabytes < 20, f"the wheel has grown to {megabytes:.1f} MB"


# Whole words of places that exist on one machine only, and of package indexes: neither belongs
# into a file that others read. Spelt in pieces so that this file does not find itself.
_PRIVATE = re.compile(
    "|".join(
        [
            r"/(?:work|root)/\w",
            r"(?<![\w.])/home/(?!cmbprep\b)\w",
            r"/Users/\w",
            "pypi" + r"\.org",
            "files\\." + "pythonhosted",
            "index-url" + r"\s*=\s*http",
        ]
    )
)


def test_no_tracked_file_names_a_private_path_or_an_index(repository: Path) -> None:
    found = []
    for path in _tracked_files(repository):
        if not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # an image or a volume
        for number, line in enumerate(text.splitlines(), 1):
            if _PRIVATE.search(line) and path != Path(__file__):
                found.append(f"{path.relative_to(repository)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    ("schema", "name"),
    [("circle-ci", ".circleci/config.yml"), ("citation-file-format", "CITATION.cff")],
)
def test_file_is_valid_under_its_published_schema(repository: Path, schema: str, name: str) -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    if not checker.is_file():
        pytest.skip("check-jsonschema is not installed")
    answer = subprocess.run(
        [checker, "--builtin-schema", f"vendor.{schema}", repository / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def test_ci_entry_is_executable_bash(repository: Path) -> None:
    entry = repository / ".ci" / "run"
    assert os.access(entry, os.X_OK)
    assert entry.read_text("utf-8").splitlines()[0] == "#!/usr/bin/env bash"
    subprocess.run(["bash", "-n", entry], check=True)
