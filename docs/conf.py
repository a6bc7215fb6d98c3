"""The documentation as a site: `make docs` writes it to docs/_build/html."""

import re

import click
from sphinx.application import Sphinx

from emca_deploy._version import __version__

project = "emca-deploy"
author = "The emca-deploy authors"
project_copyright = author
release = version = __version__
extensions = ["myst_parser", "sphinx_click"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
smartquotes = False  # they would make dashes of the options in examples
html_theme = "furo"
html_title = f"emca-deploy {version}"
html_copy_source = False


def add_contents(app: Sphinx, page: str, text: list[str]) -> None:
    """Give the map the table of contents that the site's navigation needs: its own links, section by section."""
    if page == "index":
        for section in re.split(r"^## ", text[0], flags=re.MULTILINE)[1:]:
            pages = re.findall(r"^- \[[^\]]*\]\(([^)#]+)\.md\)", section, re.MULTILINE)
            text[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {section.splitlines()[0]}", "", *pages, "```", ""])


def name_outside_files(app: Sphinx, page: str, text: list[str]) -> None:
    """Name files of the repository that are no pages of the site, such as benchmarks/RESULTS.md, instead of linking to them."""
    outside = r"\[([^\]]*)\]\((?:\.\./)+(?!howto|tutorial|reference|explanation|images)([\w./-]+)(?:#[\w-]*)?\)"
    text[0] = re.sub(outside, r"\1 (`\2`)", text[0])


def leave_out_missing_defaults(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Drop the default that sphinx-click 6 prints for an option without one when click is 8.3 or newer."""
    lines[:] = [line for line in lines if "Sentinel.UNSET" not in line]


def keep_backslashes(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Keep the backslashes at the ends of lines in examples, which reST would drop."""
    lines[:] = [line.replace("\\", "\\\\") for line in lines]


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("sphinx-click-process-options", leave_out_missing_defaults)
    app.connect("sphinx-click-process-description", keep_backslashes)
    app.connect("source-read", name_outside_files)
