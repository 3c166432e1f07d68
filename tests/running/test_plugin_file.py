"""Plugin files: what is taken, what is refused before anything is written, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmbprep.errors import UsageError
from cmbprep.running.plugin_file import PLUGINS, read_plugin


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plugin.yml"


def test_without_a_file_processes_of_this_machine_are_used() -> None:
    plugin = read_plugin(None, nprocs=3, mem_gb=8.0)
    assert plugin.name == "MultiProc"
    assert plugin.arguments == {"n_procs": 3, "memory_gb": 8.0, "raise_insufficient": False}


def test_a_file_says_otherwise_where_it_does(path: Path) -> None:
    path.write_text("plugin: MultiProc\nplugin_args: {memory_gb: 24}\n")
    assert read_plugin(path, nprocs=3, mem_gb=8.0).arguments == {
        "n_procs": 3,
        "memory_gb": 24,
        "raise_insufficient": False,
    }


def test_a_cluster_is_used_where_its_command_is(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("plugin: SLURM\nplugin_args: {sbatch_args: --mem=4G}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"plugin\.yml.*sbatch.*not installed"):
        read_plugin(path, nprocs=4, mem_gb=None)
    (tmp_path / "sbatch").touch(mode=0o755)
    plugin = read_plugin(path, nprocs=4, mem_gb=None)
    assert (plugin.name, plugin.arguments) == ("SLURM", {"sbatch_args": "--mem=4G"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"plugin": 1', "cannot be read"),
        ("plugin: [\n", "cannot be read"),
        ("[" * 5000, "cannot be read"),
        ("", 'no "plugin"'),
        ("- a\n", 'no "plugin"'),
        ("plugin_args: {}\n", 'no "plugin"'),
        ('{"plugin": 1}', 'no "plugin"'),
        ('{"plugin": "Nonsense"}', 'no plugin "Nonsense".*MultiProc'),
        ('{"plugin": "Multiproc"}', "did you mean MultiProc"),
        ('{"plugin": "MultiProcPlugin"}', "did you mean MultiProc"),
        ('{"plugin": "slurm"}', "did you mean SLURM"),
        ('{"plugin": "SLURMGraph"}', "does not wait for results.*use SLURM"),
        ('{"plugin": "Linear", "plugin_args": 3}', "must be an object"),
        ('{"plugin": "Linear", "plugin_args": [1]}', "must be an object"),
    ],
)
def test_a_wrong_file_is_named(path: Path, content: str, words: str) -> None:
    path.write_text(content)
    with pytest.raises(UsageError, match=rf"(?s)plugin\.yml: .*{words}"):
        read_plugin(path, nprocs=4, mem_gb=None)


def test_a_file_that_is_no_text_is_named(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UsageError, match=r"plugin\.yml: .*cannot be read"):
        read_plugin(path, nprocs=4, mem_gb=None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("n_procs", value) for value in ("x", 0, -1, 1.5, True, None, 100000, [2])),
        *(("memory_gb", value) for value in ("8", 0, -1, 1e-9, True, None, float("nan"))),
        ("memory_gb", float("inf")),
        ("max_jobs", 0),
    ],
)
def test_a_wrong_number_is_named(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({"plugin": "MultiProc", "plugin_args": {key: value}}))
    with pytest.raises(UsageError, match=rf'plugin\.yml: "{key}" is '):
        read_plugin(path, nprocs=4, mem_gb=None)


def test_every_plugin_that_is_offered_exists() -> None:
    from nipype.pipeline import plugins

    assert all(hasattr(plugins, f"{name}Plugin") for name in PLUGINS)
