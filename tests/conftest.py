"""Fixtures for every test."""

import atexit
import ctypes
import fcntl
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import small
from hypothesis import HealthCheck, settings
from kept import cache_folder, kept, kept_export, key_of

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite already uses every core; waiting threads would only spin
# An example has no deadline: other tests run at the same time.
_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# Two runs of the same code try the same examples; `--hypothesis-profile random` looks for new ones.
settings.register_profile("default", max_examples=25, derandomize=True, **_ANY_SPEED)
settings.register_profile("nightly", max_examples=200, derandomize=True, **_ANY_SPEED)
settings.register_profile("random", max_examples=200, **_ANY_SPEED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
cache_folder()  # the user's cache, before tests get another one
# An earlier run's cached results of a graph must not replace this code's results.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="emca-deploy-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["EMCA_DEPLOY_HISTORY"] = str(Path(os.environ["XDG_CACHE_HOME"]) / "history.db")  # not the user's
LIBM = ctypes.CDLL("libm.so.6")
gc.disable()  # until all tests are collected
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites the golden files."""
    parser.addoption("--regenerate-golden", action="store_true", help="Write tests/golden/*/*.json instead of comparing.")


def pytest_collection_finish() -> None:
    """Leave the modules and the tests out of every search for garbage, and search less often: that took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()
    if "onnxruntime" in sys.modules:
        _open_sessions_with_one_thread()


def _open_sessions_with_one_thread() -> None:
    """Give ONNX Runtime one thread where a test says nothing else: the threads of a session wait in a loop that uses a core."""
    import onnxruntime

    real = onnxruntime.InferenceSession.__init__

    def open_session(self: Any, model: Any, sess_options: Any = None, *more: Any, **named: Any) -> None:
        if sess_options is None:
            sess_options = onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = 1
        real(self, model, sess_options, *more, **named)

    onnxruntime.InferenceSession.__init__ = open_session  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage():
    """Leave what a test module imported, such as PyTorch, out of later searches for garbage too."""
    before = len(sys.modules)
    yield
    if len(sys.modules) > before + 500:
        gc.freeze()


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Return a function that compares a document with its golden file, or writes that with --regenerate-golden."""

    def check(name: str, found: Any) -> None:
        path = GOLDEN / f"{name}.json"
        if request.config.getoption("--regenerate-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(_lines(found) + "\n", encoding="utf-8")
        assert found == json.loads(path.read_text(encoding="utf-8"))

    return check


def _lines(value: Any, indent: int = 0) -> str:
    """Return JSON that breaks lines only where a value does not fit on one."""
    text = json.dumps(value)
    if indent + len(text) <= 120 or not isinstance(value, (dict, list)):
        return text
    pairs = (
        [(f"{json.dumps(key)}: ", item) for key, item in value.items()] if isinstance(value, dict) else [("", x) for x in value]
    )
    parts = [" " * (indent + 1) + key + _lines(item, indent + 1) for key, item in pairs]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * indent + closing


@pytest.fixture(autouse=True, scope="session")
def signals_as_at_a_terminal():
    """Let SIGINT and SIGHUP reach the processes that tests start, also under nohup or in the background."""
    before = [(number, signal.signal(number, handler)) for number, handler in FOREGROUND]
    yield
    for number, handler in before:
        signal.signal(number, handler)


FOREGROUND = ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL))


@pytest.fixture(autouse=True)
def float_environment():
    """Restore the processor's float state after each test: ONNX Runtime's `flush_denormals` changes the calling thread.

    It does so only for the first session of a process, which would make results depend on the order of the tests.
    """
    state = ctypes.create_string_buffer(256)  # fenv_t has 32 bytes on x86-64, 8 on aarch64
    LIBM.fegetenv(state)
    yield
    LIBM.fesetenv(state)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that fills a folder once for all processes of a run and returns it.

    With `keep`, later runs reuse the folder until `fill` or a module of the package that it imports changes.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def get(name: str, fill: Callable[[Path], object], *, keep: bool = False) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                filling = shared / f"{name}.filling"
                filling.mkdir(exist_ok=True)
                if keep:
                    kept(name, key_of(fill), fill, filling)
                else:
                    fill(filling)
                filling.rename(folder)
        return folder

    return get


@pytest.fixture(scope="session")
def bundled_model(once) -> Callable[[Path], Path]:
    """Return a function that copies the bundled network's ONNX file and manifest into a folder."""

    def export(folder: Path) -> None:
        from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_checkpoint
        from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint

        export_checkpoint(bundled_checkpoint(), folder / "model.onnx", ExportOptions(preprocessing=BUNDLED_PREPROCESSING))

    def put(folder: Path) -> Path:
        for path in once("bundled", export, keep=True).iterdir():
            (folder / path.name).hardlink_to(path)
        return folder / "model.onnx"

    return put


@pytest.fixture(scope="session")
def small_networks():
    """Return a context manager in which the registry has the families of depth 10 that `lively_network` makes."""
    return small.small_networks


@pytest.fixture(scope="session")
def lively_network():
    """Return a function that makes a network with non-trivial batch norms, deterministically.

    Its names are those of the registry, "resnet10" with every family's prefix, a small network for tests of logic, and "narrow_"
    before another name for a quarter of its width.
    """

    def make(name: str, num_classes: int = 10, seed: int = 0, **options):
        import torch

        from emca_deploy.networks.registry import create_model

        torch.manual_seed(seed)
        with small.small_networks() if name.endswith("resnet10") or name.startswith("narrow_") else nullcontext():
            module = create_model(name.removeprefix("narrow_"), num_classes, **options).eval()
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
        return module

    return make


@pytest.fixture(scope="session")
def exported(once, tmp_path_factory, lively_network):
    """Return a function that exports such a network once for all processes of a run and returns the file."""
    folder = tmp_path_factory.mktemp("onnx")

    def export(name: str, **options) -> Path:
        def write(made: Path) -> None:
            import onnx_ir as ir

            from emca_deploy.exporting.exporter import export_onnx
            from emca_deploy.networks import registry  # noqa: F401  makes the network

            ir.save(export_onnx(lively_network(name, **options), 64), made / "model.onnx")

        path = folder / f"{'-'.join([name, *(f'{option}={value}' for option, value in options.items())])}.onnx"
        if not path.exists():  # a link in this process's own folder, since tables are written next to it
            path.hardlink_to(once(path.stem, write, keep=True) / "model.onnx")
        return path

    return export


@pytest.fixture(scope="session")
def random_model(once, tmp_path_factory) -> Callable[..., Path]:
    """Return a function that exports a network with random weights as `export` does, with its manifest, and returns the file."""
    folder = tmp_path_factory.mktemp("random")

    def get(arch: str, size: int, precision: str = "fp32") -> Path:
        def export(made: Path) -> None:
            from emca_deploy.artifacts import Preprocessing
            from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint

            options = ExportOptions(arch=arch, num_classes=10, preprocessing=Preprocessing.for_size(size), precision=precision)
            export_checkpoint(None, made / f"{precision}.onnx", options)

        own = folder / f"{arch}-{size}-{precision}"
        if not own.exists():
            shutil.copytree(once(own.name, export, keep=True), own, copy_function=os.link)
        return own / f"{precision}.onnx"

    return get


@pytest.fixture(scope="module")
def kept_exports():
    """Have commands that run in this process take what an earlier export of the same network by the same code made."""
    from emca_deploy.exporting import checkpoint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "export_onnx", kept_export(checkpoint.export_onnx))
        yield


@pytest.fixture
def in_threads(monkeypatch):
    """Measure candidates in threads of this process: starting one of its own costs more than measuring it."""
    import in_process

    in_process.use_threads(monkeypatch)


@pytest.fixture
def in_process(monkeypatch):
    """Measure candidates of the fake backend in this process on a simulated clock; none may crash or hang."""
    import in_process

    in_process.patch(monkeypatch)
