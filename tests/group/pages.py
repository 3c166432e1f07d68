"""Reading group pages: their packed parts, and every number that they show."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html import unescape
from typing import Any


def packed(text: str, name: str) -> bytes:
    """Unpack an element of a page."""
    (content,) = re.findall(rf'<script type="text/plain" id="{re.escape(name)}">([^<]*)<', text)
    return gzip.decompress(base64.b64decode(content))


def rows_of(text: str) -> dict[str, Any]:
    """Return the rows of the scans in a page."""
    content: dict[str, Any] = json.loads(packed(text, "rows"))
    return content


def attributes(tag: str) -> dict[str, str]:
    """Return the attributes of a start tag."""
    return {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
