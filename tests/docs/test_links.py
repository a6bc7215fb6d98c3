"""Every link of the hand-written pages leads to an existing file and heading."""

import re
from urllib.parse import unquote

import pytest
from pages import ROOT

FOLDERS = ("docs", "benchmarks", "emca_deploy", "examples", "scripts", "tests")
FOUND = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
PAGES = sorted(str(path.relative_to(ROOT)) for path in FOUND if "_build" not in path.parts)
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)


def links(text):
    return [first or second for first, second in LINK.findall(CODE.sub("", text))]


def anchors(text):
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,6} +(.+?)$", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def dead(page):
    """Return the broken links of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for link in links(text):
        if re.match(r"(https?|mailto):", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        if (
            not target.is_relative_to(ROOT)
            or not target.exists()
            or (anchor and anchor not in anchors(target.read_text(encoding="utf-8")))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert dead(page) == []


def test_a_dead_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# A `b`, c\n")
    (tmp_path / "a.md").write_text(
        "[1](b.md#a-b-c) [2](b.md#d) [3](c.md) ![4](b.svg) `[5](d.md)` [6](../e.md) [7](https://x.org)\n"
    )
    assert dead("a.md") == ["b.md#d", "c.md", "b.svg", "../e.md"]


def test_every_page_is_on_the_map():
    """Readers find a page through the map only."""
    index = ROOT / "docs/index.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index.read_text(encoding="utf-8"))}
    assert {path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts} - {index} <= listed
