"""Helpers for tests of the documentation: its pages, their code blocks, and how these are run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if "_build" not in path.parts
)
RUN, SHOWN = ("console", "python"), ("text", "json", "toml", "yaml", "{eval-rst}")
# Reasons for not running a block, given in a comment on the line before it.
REASONS = (
    "needs a cluster",
    "needs a Jetson",
    "needs an NVIDIA GPU",
    "needs a Jetson, by ssh",
    "installs packages",
    "needs the new backend",
    "needs a detector",
    "needs a signing tool",
)
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+?) -->\n)?(?P<indent> *)```(?P<language>\w*|\{[\w-]+\})\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "profile": {"duration_s": 0.5, "max_duration_s": 0.5, "warmup_s": 0.1, "processes": 1},
    "export": {"image_size": "64"},
    "calibrate": {"samples": 16, "recover": "none", "placement_budget_s": 90},
    "sensitivity": {"samples": 4},
    "deploy": {"image_size": "64", "samples": 16, "recover": "none", "duration_s": 0.5, "limit": 100},
    "demo": {"duration_s": 0.5, "limit": 100},
    "layers": {"calls": 5, "no_roofline": True},
    "tune": {"budget_s": 60, "threads_max": 1},
}
"""Shorter defaults for the commands of pages; options that a page itself names take precedence."""


PROGRAM = """#!{python}
from pathlib import Path

from emca_deploy.cli import cli, main
from emca_deploy.data import bundled

if __name__ == "__main__":
    bundled.bundled_calibration_images = lambda: Path({images!r})  # for the demo: 30 images instead of 300
    cli.context_settings["default_map"] = {defaults!r}
    main()
"""


@dataclass(frozen=True)
class Block:
    """A fenced block; the first line of its text is its name."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def not_run(self) -> str:
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def runs(self) -> bool:
        """Whether it runs without preparation; one marked ssh needs a remote machine and runs in tests/integration/ssh."""
        return (self.language in RUN and not self.not_run and self.mark != "ssh") or bool(self.file)

    @property
    def file(self) -> str:
        """The file that holds its text."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def exit_code(self) -> int:
        return int(self.mark.removeprefix("exit code ")) if self.mark.startswith("exit code ") else 0

    @property
    def operations(self) -> set[str]:
        """Return its operations: commands of the command line or functions of the package."""
        if self.language == "python":
            return set(re.findall(r"\bed\.(\w+)\(", self.text))
        return {words[0] for words in calls(self)}

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str | None = None) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8") if text is None else text
    return [
        Block(page, text.count("\n", 0, found.start("language")) + 1, found["language"], found["text"], found["mark"] or "")
        for found in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[str]:
    """Return the commands of a console block: the text after each prompt, including lines continued by a backslash."""
    return [found.replace("\\\n", " ") for found in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.MULTILINE)]


def calls(block: Block) -> list[list[str]]:
    """Return the words after emca-deploy for every call of it in a console block."""
    found: list[list[str]] = []
    for command in commands(block):
        words = shlex.shlex(command, posix=True, punctuation_chars=True)
        words.whitespace_split, words.commenters = True, "#"
        for operator, call in groupby(words, key=lambda word: set(word) <= set("();<>|&")):
            call_words = list(call)
            if not operator and "emca-deploy" in call_words:
                found.append(call_words[call_words.index("emca-deploy") + 1 :])
    return found


class Shell:
    """A folder in which the blocks of a page run in order."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        tools = folder / ".bin"
        tools.mkdir()
        script = tools / "emca-deploy"
        script.write_text(PROGRAM.format(python=sys.executable, images=str(folder / "calibration"), defaults=DEFAULTS))
        script.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "EMCA_DEPLOY_DEVICES": str(folder / ".devices.toml"),
            **(environment or {}),
        }

    def run(self, block: Block) -> None:
        """Run a block; the caller has changed into this folder.

        Raises:
            AssertionError: A command ended with another exit code than the page states.
        """
        if block.file:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            return
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, str(ROOT / block.page), "exec"), self.names)
            return
        for command in commands(block):
            script = ["bash", "-euo", "pipefail", "-c", command]
            options: dict[str, Any] = {"cwd": self.folder, "env": self.environment, "timeout": 1800}
            done = subprocess.run(script, check=False, capture_output=True, text=True, **options)
            assert done.returncode == block.exit_code, f"{block}: {command}\n{done.stdout}\n{done.stderr}"


def put_sample(folder: Path, once: Callable[..., Path], bundled_model: Callable[[Path], Path]) -> None:
    """Copy the files that pages name into a folder: the bundled network as a checkpoint and as ONNX files, and some images."""

    def fill(made: Path) -> None:
        import torch
        from safetensors.torch import load_file

        from emca_deploy.data.bundled import bundled_checkpoint

        state = {f"module.{name}": value for name, value in load_file(bundled_checkpoint()).items()}
        torch.save({"epoch": 90, "state_dict": state}, made / "model_best.pth.tar")

    (folder / "model_best.pth.tar").hardlink_to(once("pages", fill, keep=True) / "model_best.pth.tar")
    shutil.copy(bundled_model(folder), folder / "their.onnx")
    _unpack("fashion_mnist_calibration.zip", folder / "calibration", 3)
    _unpack("fashion_mnist_test.zip", folder / "val", 20)


def _unpack(name: str, folder: Path, each: int) -> None:
    """Unpack `each` images of each class."""
    seen: Counter[str] = Counter()
    with ZipFile(ROOT / "emca_deploy/data/bundled" / name) as archive:
        for member in archive.namelist():
            label, _, file = member.rpartition("/")
            seen[label] += bool(file)
            if file and seen[label] <= each:
                target = folder / Path(label).name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
