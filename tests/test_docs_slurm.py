"""The Slurm script of ``docs/cluster.md`` is run as it stands, with stand-ins for Slurm's parts.

The stand-in for ``sbatch`` queues jobs as the real one does: it copies the script, and takes at
most 1000 tasks per array. A job whose ``--output`` folder does not exist fails without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "cmbprep_slurm.sh"

_SBATCH = """#!{python}
import json, os, re, shutil, sys
from pathlib import Path

options, arguments = {{}}, sys.argv[1:]
while arguments and arguments[0].startswith("-"):
    name, _, value = arguments.pop(0).partition("=")
    if name not in ("--parsable", "--job-name", "--array", "--cpus-per-task", "--mem", "--time",
                    "--output", "--dependency"):
        sys.exit(f"sbatch: unrecognized option {{name}}")
    options[name] = value
last = re.fullmatch(r"1-(\\d+)", options.get("--array", "1-1"))
if last is None or int(last[1]) > 1000:
    sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
queue = Path({queue!r})
number = len(list(queue.glob("*.json"))) + 1
spool = queue / f"job{{number:05}}"
spool.mkdir()
shutil.copy(arguments[0], spool / "slurm_script")
job = {{"number": number, "options": options, "arguments": arguments[1:], "folder": os.getcwd()}}
(queue / f"{{number:05}}.json").write_text(json.dumps(job))
print(f"{{number}};cluster" if "--parsable" in options else f"Submitted batch job {{number}}")
"""

_CMBPREP = """#!/bin/bash
{{ printf '%s\\037' "$@"; printf '\\n'; }} >> {calls}
for argument in "$@"; do
    case $argument in sub-bad) exit 1 ;; esac
done
"""


@dataclass
class Cluster:
    """A folder with the stand-ins, and what was recorded."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name in ("bin", "queue", "node"):
            (self.root / name).mkdir(parents=True)
        self.environment = os.environ | {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "TMPDIR": str(self.root / "node"),
        }
        queue = str(self.root / "queue")
        self.add_program("sbatch", _SBATCH.format(python=sys.executable, queue=queue))
        self.add_program("cmbprep", _CMBPREP.format(calls=f"'{self.root / 'calls'}'"))

    def add_program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def bids(self) -> Path:
        return self.root / "my data"

    @property
    def out(self) -> Path:
        return self.root / "my results" / "cmbprep"

    def submit(self) -> subprocess.CompletedProcess[str]:
        """Do what the page says: save the script, edit two paths, start it with bash."""
        (self.root / "cmbprep_slurm.sh").write_text(edited_script(self.bids, self.out))
        return subprocess.run(
            ["bash", "cmbprep_slurm.sh"],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(p.read_text()) for p in sorted((self.root / "queue").glob("*.json"))]

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of each call of cmbprep, in order."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split("\x1f")[:-1] for line in lines]

    def run_all(self) -> list[int]:
        """Run all jobs, the last submitted first if its dependency allows; return statuses."""
        statuses = []
        while waiting := [job for job in self.jobs if job["number"] not in self.done]:
            ready = [job for job in waiting if _dependencies(job) <= self.done]
            statuses += self.run_job(ready[-1])
            self.done.add(ready[-1]["number"])
        return statuses

    def run_job(self, job: Mapping[str, Any], tasks: Collection[int] | None = None) -> list[int]:
        array = job["options"].get("--array")
        if array is None:
            return [self.run_task(job, None)]
        last = int(array.removeprefix("1-"))
        chosen = range(1, last + 1) if tasks is None else sorted({*tasks} & {*range(1, last + 1)})
        return [self.run_task(job, task) for task in chosen]

    def task_environment(self, job: Mapping[str, Any], task: int | None) -> dict[str, str]:
        environment = self.environment | {"SLURM_JOB_ID": str(job["number"])}
        if task is not None:
            environment["SLURM_ARRAY_TASK_ID"] = str(task)
        if cpus := job["options"].get("--cpus-per-task"):
            environment["SLURM_CPUS_PER_TASK"] = cpus
        return environment

    def command(self, job: Mapping[str, Any]) -> list[str]:
        spool = self.root / "queue" / f"job{job['number']:05}"
        return ["bash", str(spool / "slurm_script"), *job["arguments"]]

    def run_task(self, job: Mapping[str, Any], task: int | None) -> int:
        output = Path(job["folder"]) / job["options"].get("--output", "slurm-%j.out")
        name = output.name.replace("%A", str(job["number"])).replace("%a", str(task))
        output = output.with_name(name.replace("%j", str(job["number"])))
        if not output.parent.is_dir():
            return 1
        with output.open("w") as file:
            return subprocess.run(
                self.command(job),
                cwd=job["folder"],
                env=self.task_environment(job, task),
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode


def _dependencies(job: Mapping[str, Any]) -> set[int]:
    kind, *numbers = job["options"].get("--dependency", "afterany").split(":")
    assert kind == "afterany"
    return {int(number) for number in numbers}


def script() -> str:
    """Return the script that the page includes."""
    return SCRIPT.read_text("utf-8")


def edited_script(bids: Path, out: Path) -> str:
    text = script()
    for line, path in (('bids="/path/to/bids"', bids), ('out="/path/to/derivatives/cmbprep"', out)):
        name = line.partition("=")[0]
        assert text.count(f"\n{line}\n") == 1
        text = text.replace(line, f'{name}="{path}"')
    return text


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "a cluster")


def _add(cluster: Cluster, *labels: str) -> None:
    for label in labels:
        (cluster.bids / f"sub-{label}" / "anat").mkdir(parents=True)


def _participants(cluster: Cluster) -> list[str]:
    """Participants that cmbprep was called for, sorted; each call has the right paths."""
    found = []
    for call in cluster.calls:
        assert call[:2] == [str(cluster.bids), str(cluster.out)]
        if call[2] == "participant":
            options = dict(zip(call[3::2], call[4::2], strict=True))
            assert set(options) == {"--participant-label", "--nprocs", "--mem", "--work-dir"}
            assert options["--nprocs"] == "2"
            assert Path(options["--work-dir"]).parent == cluster.root / "node"
            found.append(options["--participant-label"])
    return sorted(found)


def test_each_participant_once_then_the_group(cluster: Cluster) -> None:
    _add(cluster, "01", "02", "03")
    shutil.copytree(cluster.bids / "sub-03", cluster.root / "store")
    (cluster.bids / "sub-04").symlink_to(cluster.root / "store")
    (cluster.bids / "sub-notes.txt").touch()
    assert cluster.submit().returncode == 0
    # Added between submission and start, first by name, while another one is withdrawn.
    _add(cluster, "00")
    assert cluster.run_all() == [0, 0, 0, 0, 0]
    assert _participants(cluster) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert cluster.calls[-1] == [str(cluster.bids), str(cluster.out), "group"]
    assert list((cluster.root / "node").iterdir()) == []


def test_one_participant(cluster: Cluster) -> None:
    _add(cluster, "x")
    assert cluster.submit().returncode == 0
    assert cluster.run_all() == [0, 0]
    assert _participants(cluster) == ["sub-x"]


def test_more_participants_than_an_array_may_have(cluster: Cluster) -> None:
    _add(cluster, *(f"{number:04}" for number in range(1, 2003)))
    assert cluster.submit().returncode == 0
    first, second, third, group = cluster.jobs
    assert [job["options"]["--array"] for job in (first, second, third)] == [
        "1-1000",
        "1-1000",
        "1-2",
    ]
    assert _dependencies(group) == {1, 2, 3}
    for job in (first, second, third):
        cluster.run_job(job, (1, 2, 1000))
    assert _participants(cluster) == [
        f"sub-{number:04}" for number in (1, 2, 1000, 1001, 1002, 2000, 2001, 2002)
    ]


def test_a_second_submission_does_not_shift_the_first(cluster: Cluster) -> None:
    _add(cluster, "02")
    cluster.submit()
    _add(cluster, "01")
    cluster.submit()
    assert cluster.run_all() == [0] * 5
    assert _participants(cluster) == ["sub-01", "sub-02", "sub-02"]


def test_a_failed_participant_stops_no_other_and_not_the_group(cluster: Cluster) -> None:
    _add(cluster, "bad", "good")
    cluster.submit()
    assert cluster.run_all() == [1, 0, 0]
    assert cluster.calls[-1][2] == "group"
    assert list((cluster.root / "node").iterdir()) == []


def test_an_empty_dataset_submits_nothing(cluster: Cluster) -> None:
    cluster.bids.mkdir()
    ran = cluster.submit()
    assert ran.returncode == 2
    assert str(cluster.bids) in ran.stderr
    assert cluster.jobs == []
    assert not cluster.out.exists()


def test_a_stopped_task_lets_the_program_end_and_tidies_up(cluster: Cluster) -> None:
    """SIGTERM goes to all processes of a job, as ``scancel`` and the time limit send it."""
    _add(cluster, "01")
    cluster.submit()
    ending = cluster.root / "ending"
    cluster.add_program(
        "cmbprep",
        f"""#!/bin/bash
trap 'sleep 0.3; test -d "${{@: -1}}" && echo in-time > "{ending}"; exit 143' TERM
echo > "{cluster.root}/started"
while :; do sleep 0.05; done
""",
    )
    job = cluster.jobs[0]
    task = subprocess.Popen(
        cluster.command(job), env=cluster.task_environment(job, 1), start_new_session=True
    )
    until = time.monotonic() + 60
    while not (cluster.root / "started").exists():
        assert time.monotonic() < until, "the task did not start"
        time.sleep(0.05)
    os.killpg(task.pid, signal.SIGTERM)
    assert task.wait(timeout=60) == 143
    assert ending.read_text() == "in-time\n"
    assert list((cluster.root / "node").iterdir()) == []
