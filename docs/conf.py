"""Sphinx settings: Markdown pages, API pages from docstrings, nothing from a network."""

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
    "sidebar",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autosummary_generate = True
# torch is for training only and not installed here; importing __main__ would run the program.
autodoc_mock_imports = ["torch", "cmbprep.__main__"]
autodoc_member_order = "bysource"
# A type in a signature that several modules have (Row, Table) is not linked; that is no fault.
suppress_warnings = ["ref.python"]
autodoc_typehints = "signature"
# Docstrings are numpydoc's. Napoleon reads them too, and takes the sections that workflows add.
napoleon_google_docstring = False
# Types are prose ("array of shape (3,)"), not names to be linked.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Inputs", "params_style"), ("Outputs", "params_style")]

html_theme = "furo"
html_title = f"cmbprep {release}"
html_static_path = ["_static"] if (HERE / "_static").is_dir() else []
html_show_sourcelink = False
