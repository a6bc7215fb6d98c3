"""Texts from the templates of this room."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional

__all__ = ["ENDING", "TEMPLATES", "environment"]

TEMPLATES = Path(__file__).parent / "templates"
ENDING = ".jinja"


def environment() -> Any:
    """Return Jinja2's environment with the filter `text`: a literal of JSON, which Python, YAML and protobuf read as well.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    jinja2 = import_optional("jinja2")
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["text"] = partial(json.dumps, ensure_ascii=False)
    return made
