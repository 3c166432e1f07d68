"""One file for each scan that holds the page and all its images, for machines without a server.

It opens from ``file://`` and reaches no network. What the reader does is kept by the browser and
saved as a file, which :mod:`cmbprep.review.importing` takes in.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmbprep.errors import CmbprepError
from cmbprep.outputs.files import write_atomically
from cmbprep.reports.packing import Packed
from cmbprep.review.server import SCRIPT_TAG, page_files
from cmbprep.review.session import ReviewSession

logger = logging.getLogger("cmbprep")

#: Content security policy of the file: nothing but what it holds.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'\">"
)
_CHARSET = '<meta charset="utf-8">'
_DATA = '<script type="application/json" id="review-data"></script>'
_STYLE = re.compile(r'<link rel="stylesheet" href="page/([\w.-]+)\?token=@TOKEN@">')


def write_static(session: ReviewSession, name: str, folder: Path) -> Path:
    """Write the static page of a scan.

    Parameters
    ----------
    session
        Whose reader and round the page is for.
    name
        Of the scan.
    folder
        Where the file goes.

    Returns
    -------
    Path
        The file.
    """
    automatic = session.scans[name].automatic
    stem = f"{automatic.src}_desc-{session.reader.label}"
    scan = session.scan_without_acts(name)
    automatic.require_unchanged()
    based_on = automatic.based_on
    owner = f"{session.dataset}|{automatic.src}|{session.reader.label}"
    blocks, images = [], []
    for image in scan["images"]:
        try:
            blocks.append(_block(f"image-{image['id']}", session.image(name, image["id"])))
            images.append(image)
        except (OSError, EOFError, ValueError, CmbprepError) as error:
            logger.warning("%s: the image %s is left out: %s", name, image["title"], error)
    content = {
        "session": session.describe(),
        "scan": {**scan, "images": images},
        "outlines": session.outlines(name),
        "row": session.row_without_acts(name),
        # A page of another result must not find the acts of this one in the browser.
        "storage_key": f"{owner}|{based_on.digest}",
        "export_name": f"{stem}_acts.json",
        "based_on": asdict(based_on),
    }
    path = folder / f"{stem}_review.html"
    with write_atomically(path) as temporary:
        temporary.write_text(_page(content, blocks), encoding="utf-8")
    return path


def _page(content: dict[str, Any], blocks: list[str]) -> str:
    """Return the text of the file: the page with its files and data inside."""
    files = page_files()
    text = files["index.html"].replace(_CHARSET, f"{_CHARSET}\n{_POLICY}")
    text = _STYLE.sub(lambda match: f"<style>\n{files[match[1]]}</style>", text)
    text = SCRIPT_TAG.sub(lambda match: f"<script>\n{_script(files[match[1]])}</script>", text)
    # No text of the data can end the element that holds it.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    filled = _DATA.replace("></script>", f">{data}</script>")
    return text.replace(_DATA, "\n".join([filled, *blocks]))


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")


def _block(name: str, image: Packed) -> str:
    return f'<script type="text/plain" id="{name}">{image.embedded()}</script>'
