"""Sphinx settings: Markdown pages, numpydoc API pages, nothing that needs a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

import cmbprep

project = "cmbprep"
author = "The cmbprep developers"
copyright = "The cmbprep developers, Apache-2.0"
version = release = cmbprep.__version__

extensions = [
    "bibliography",
    "from_source",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autosummary_generate = True
# torch is for training only and not installed here; importing __main__ would run the program.
autodoc_mock_imports = ["torch", "cmbprep.__main__"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"cmbprep {release}"
html_static_path = ["_static"] if (HERE / "_static").is_dir() else []
html_show_sourcelink = False
