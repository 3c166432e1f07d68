"""The picture of a report in the README: ``python benchmarks/report_picture.py REPORT.html``.

Photographs the top of a report, as ``make demo`` makes it, with headless Chromium, and writes
``docs/_static/report.png``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TARGET = Path(__file__).resolve().parents[1] / "docs" / "_static" / "report.png"


def main() -> int:
    """Take the picture that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="demo/derivatives/sub-01.html, say")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--size", type=int, nargs=2, default=(1200, 1600), help="pixels")
    arguments = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
        # Chromium refuses to run its sandbox as root, as in most containers.
        command += ["--no-sandbox", f"--user-data-dir={folder}/profile"]
        command += ["--window-size={},{}".format(*arguments.size), f"--screenshot={shot}"]
        command.append(arguments.report.resolve().as_uri())
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(shot).convert("RGB"))
    # Steps of four cannot be seen, and take a quarter off the file.
    rounded = np.where(pixels == 255, 255, np.round(pixels / 4) * 4).clip(0, 255)
    Image.fromarray(rounded.astype(np.uint8)).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
