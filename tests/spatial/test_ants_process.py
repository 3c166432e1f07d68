"""The process that deforms: what it gives, and what becomes of it when something goes wrong."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cmbprep.errors import ScanError
from cmbprep.spatial.ants import Fit, Stage
from cmbprep.spatial.ants_process import AntsProcess, _pickle
from cmbprep.spatial.grids import Grid
from cmbprep.spatial.transforms import LinearMap, map_points

SHAPE = (40, 36, 32)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def moved(points):
    """Where points of the fixed image lie in the moving one, up to 4 mm away."""
    return points + 2.5 * np.sin(points[:, [1, 2, 0]] / 12)


def pair():
    """A seeded smooth texture, and the same warped."""
    noise = np.random.default_rng(5).normal(size=SHAPE)
    texture = 100 + 500 * ndimage.gaussian_filter(noise, 2.0)
    warped = ndimage.map_coordinates(
        texture, moved(GRID.points()).T / 2.0, order=1, mode="nearest"
    ).reshape(SHAPE)
    return (warped.astype(np.float32), GRID), (texture.astype(np.float32), GRID)


FIT = Fit(*pair(), EVERYWHERE, LinearMap(np.eye(4)), Stage("SyN[0.25,3,0]", (60, 40), (4.0, 2.0)))


def test_it_finds_a_known_deformation_both_ways():
    with AntsProcess() as process:
        linear, warp, inverse = process.run(FIT)
    np.testing.assert_allclose(linear.matrix, np.eye(4), atol=1e-6)
    inner = np.zeros(SHAPE, dtype=bool)
    inner[5:-5, 5:-5, 5:-5] = True
    points = GRID.points()[inner.ravel()]
    there = np.linalg.norm(map_points(points, (warp,)) - moved(points), axis=1)
    back = np.linalg.norm(map_points(moved(points), (inverse,)) - points, axis=1)
    assert np.median(np.linalg.norm(moved(points) - points, axis=1)) > 2.5
    assert np.median(there) < 0.6
    assert np.median(back) < 0.6


def test_one_process_does_any_number_of_stages_and_then_ends():
    with AntsProcess() as process:
        fields = [process.run(FIT)[1].displacement for _ in range(2)]
        child = process._process
        assert child.poll() is None
    assert child.poll() is not None
    np.testing.assert_array_equal(*fields)


def test_what_antsregistration_refuses_is_an_error_of_the_scan_and_the_process_goes_on():
    with AntsProcess() as process:
        with pytest.raises(ScanError, match="registration broke off"):
            process.run(replace(FIT, stage=Stage("Nonsense[1]", (1,), (2.0,))))
        assert process.run(FIT)[1] is not None


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_process_that_is_killed_once_is_started_again(when):
    with AntsProcess() as process:
        expected = process.run(FIT)[1].displacement
        first = process._process.pid
        if when == "before":
            process._process.kill()
            process._process.wait()
        else:
            os.kill(first, signal.SIGSTOP)
            threading.Timer(0.5, process._process.kill).start()
        np.testing.assert_array_equal(process.run(FIT)[1].displacement, expected)
        assert process._process.pid != first


def test_a_process_that_is_killed_again_is_said_to_have_been(monkeypatch):
    start = AntsProcess._start

    def start_dead(self):
        start(self)
        self._process.kill()

    monkeypatch.setattr(AntsProcess, "_start", start_dead)
    with AntsProcess() as process, pytest.raises(ScanError, match=r"killed.*--nprocs"):
        process.run(FIT)


def test_it_ends_with_the_process_that_started_it():
    """Also while it is at work, when it does not read its input."""
    code = (
        "import time\n"
        "from cmbprep.spatial.ants_process import AntsProcess\n"
        "with AntsProcess() as process:\n"
        "    print(process._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    wait_until(lambda: Path(f"/proc/{child}/comm").exists())
    # It has asked the kernel by the time that it waits for its first order.
    wait_until(lambda: all(is_asleep(child) for _ in range(10)))
    os.kill(child, signal.SIGSTOP)  # it can do nothing about it any more
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_alive(child))


def is_asleep(pid):
    time.sleep(0.05)
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


class OddError(Exception):
    """Cannot be made again from what is pickled."""

    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def test_an_error_that_cannot_be_pickled_keeps_its_text():
    error = pickle.loads(_pickle(OddError("some words", 2)))
    assert str(error) == "OddError: some words"
    assert str(pickle.loads(_pickle(ScanError("x", hint="y")))) == "x. What to do: y."
