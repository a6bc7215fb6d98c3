"""The examples of docs/reference/python.md, run one after the other as a reader would."""

import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

import emca_deploy

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"
TEXT = PAGE.read_text(encoding="utf-8")
LONG = ("tune", "deploy", "report", "demo", "doctor")


def code(text):
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def sections():
    parts = re.split(r"^## (\w+)$", TEXT, flags=re.MULTILINE)
    return parts[0], dict(zip(parts[1::2], parts[2::2], strict=True))


INTRODUCTION, SECTIONS = sections()


@pytest.fixture(scope="module")
def example(tmp_path_factory, small_checkpoint, small_networks, labelled_images):
    """Run the code of a section, in a folder with what it names and after the code before it."""
    folder = tmp_path_factory.mktemp("python")
    shutil.copy(small_checkpoint, folder / "checkpoint.pth")
    (folder / "calibration").symlink_to(labelled_images)
    shutil.copytree(labelled_images, folder / "validation")
    names = {}

    def run(section, networks=small_networks):
        with networks():
            exec(compile(code(section), str(PAGE), "exec"), names)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EMCA_DEPLOY_DEVICES", str(folder / "devices.toml"))
        run(INTRODUCTION)
        yield run


def test_every_operation_has_an_example():
    operations = {place.removeprefix("api.") for place in emca_deploy._PLACES if place.startswith("api.")} - {"images"}
    assert set(SECTIONS) == operations
    assert all(f"ed.{name}(" in code(section) for name, section in SECTIONS.items())


def test_the_examples_run(example, capsys):
    for name, section in SECTIONS.items():
        if name not in LONG:
            example(section)
            assert capsys.readouterr().out.strip(), name


@pytest.mark.slow  # a search, a deployment, the demo, and every library loaded once
def test_the_long_examples_run(example, small_networks, capsys):
    example(SECTIONS["export"])
    for name in LONG:
        example(SECTIONS[name], nullcontext if name == "demo" else small_networks)
        assert capsys.readouterr().out.strip(), name
