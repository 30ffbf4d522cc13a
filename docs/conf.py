"""Sphinx: `make docs` builds the pages into docs/_build/html, warnings counting as errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cmbench import __version__

project = "cmbench"
author = "the cmbench authors"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository that are no pages
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cmbench {release}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
