"""Slow files kept from one test run to the next until the code that makes them changes."""

import ast
import fcntl
import hashlib
import inspect
import io
import os
import pickle
import platform
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import emca_deploy

if TYPE_CHECKING:
    import onnx_ir as ir

REPOSITORY = Path(__file__).parents[1]
PACKAGE = Path(emca_deploy.__file__).parent
VERSIONS_KEPT = 4
"""Versions kept of each entry, for work on several branches at once."""

Fill = Callable[[Path], object]


def cache_folder() -> Path:
    """Return the folder of the entries; all processes of a run share it, even if they change XDG_CACHE_HOME."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.setdefault("EMCA_DEPLOY_TESTS_CACHE", str(Path(home) / "emca-deploy" / "tests")))


def kept(entry: str, key: str, fill: Fill, into: Path) -> None:
    """Copy an entry's files into a folder; make the entry first if none has this key."""
    versions = cache_folder() / entry
    versions.mkdir(parents=True, exist_ok=True)
    found = versions / key
    with (versions / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            made = Path(tempfile.mkdtemp(dir=versions, prefix="making-"))
            try:
                fill(made)
                made.rename(found)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        os.utime(found)
        _evict(versions)
        shutil.copytree(found, into, dirs_exist_ok=True)  # a copy: a test's changes must not persist


def _evict(versions: Path) -> None:
    newest_first = sorted((path for path in versions.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for path in newest_first[VERSIONS_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def kept_export(real: Callable[..., "ir.Model"]) -> Callable[..., "ir.Model"]:
    """Return `export_onnx` that looks first for what an earlier call made of the same module and options."""
    import onnx_ir as ir

    def export(module: Any, *options: object) -> "ir.Model":
        def fill(made: Path) -> None:
            from emca_deploy.exporting.exporter import export_onnx  # noqa: F401  what makes it
            from emca_deploy.networks import registry  # noqa: F401  the network

            ir.save(real(module, *options), made / "model.onnx")

        try:
            entry = _module_digest(module, options)
        except (pickle.PicklingError, AttributeError, TypeError):  # made inside a function, say
            return real(module, *options)
        with tempfile.TemporaryDirectory() as folder:
            kept(f"export-{entry}", key_of(fill), fill, Path(folder))
            return ir.from_proto(onnx.ModelProto.FromString((Path(folder) / "model.onnx").read_bytes()))

    return export


def _module_digest(module: Any, options: tuple[object, ...]) -> str:
    """Return a hash of a module, its attributes and its values, and of the options."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if not isinstance(value, torch.Tensor):
                return None
            array = value.detach().numpy()
            return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest()

    stream = io.BytesIO()
    Pickler(stream).dump((module, options))
    return hashlib.sha256(stream.getvalue()).hexdigest()[:32]


def key_of(fill: Fill) -> str:
    """Return a hash of the interpreter, the pinned packages, the file of `fill` and all modules it imports."""
    modules = frozenset(_named_in(textwrap.dedent(inspect.getsource(fill))))
    assert modules, f"{fill.__name__} imports nothing: import inside it what it takes from the package"
    digest = hashlib.sha256(f"{sys.version} {platform.machine()} {version('torch')}".encode())
    others = (
        REPOSITORY / "constraints.txt",
        REPOSITORY / "tests" / "conftest.py",
        REPOSITORY / "tests" / "small.py",
        Path(inspect.getfile(fill)),
    )
    for path in (*others, *_sources_of(modules)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


@cache
def _sources_of(modules: frozenset[str]) -> tuple[Path, ...]:
    """Return the files of some modules, of the modules imported anywhere in them, and their data.

    The package's top-level exports and modules that registries name by string are not followed: no export uses a backend.
    """
    found: set[Path] = set()
    waiting, seen = list(modules), {"emca_deploy"}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0] or name)
        path = PACKAGE.parent.joinpath(*name.split("."))
        for source in filter(Path.is_file, (path / "__init__.py", path.with_suffix(".py"))):
            found.add(source)
            waiting.extend(_named_in(source.read_text(encoding="utf-8")))
            found.update(each for each in source.with_suffix("").glob("*") if each.is_file())  # data/bundled/ of data/bundled.py
    return tuple(sorted(found))


def _named_in(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("emca_deploy"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emca_deploy"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
