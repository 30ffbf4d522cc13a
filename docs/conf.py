"""Sphinx: `make docs` builds the pages into docs/_build/html, warnings counting as errors."""

import shutil
import sys
from pathlib import Path
from typing import Any

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
html_extra_path = ["llms.txt"]
html_title = f"cmbench {release}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True


def setup(app: Any) -> None:
    """Puts every page beside its HTML as Markdown too: llms.txt links to those."""
    app.connect("build-finished", _copy_pages)


def _copy_pages(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for page in Path(app.srcdir).glob("*.md"):
            shutil.copy(page, app.outdir)
