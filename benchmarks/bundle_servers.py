"""Check that MLflow, with the folder of `bundle --layout mlflow`, gives the classes of `validate` on real images.

    python benchmarks/bundle_servers.py                     # installs mlflow in a new environment first; about ten minutes
    python benchmarks/bundle_servers.py --environment DIR   # an environment that is made once, and used again
    python benchmarks/bundle_servers.py --images 40         # fewer of the 2,000 bundled test images (Fashion-MNIST)

MLflow runs in an environment without emca-deploy. Each model is loaded with `mlflow.pyfunc.load_model`; those that take uint8
pixels are also asked through `mlflow models serve`, since their JSON is short.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.api.bundle import BundleRequest
from emca_deploy.api.calibrate import CalibrateRequest, calibrate
from emca_deploy.api.export import ExportRequest, export
from emca_deploy.api.lay_out import lay_out
from emca_deploy.api.validate import ValidateRequest, validate
from emca_deploy.artifacts import write_json
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_checkpoint, bundled_test_images
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.preprocessing import PreprocessingOptions
from emca_deploy.tasks.inputs import native_images

BACKENDS = ("onnxruntime", "openvino")
FORM = "uint8-nhwc"
BATCH = 50
START_S = 120

PREDICT = """
import sys
import mlflow.pyfunc
import numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([model.predict(images[at : at + 50]) for at in range(0, len(images), 50)]))
"""


def python_with_mlflow(folder: Path) -> Path:
    """Return the Python of an environment with MLflow, which is made if the folder is new."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        # No constraints.txt: MLflow needs older versions of some libraries. The runtimes must be those of `validate`.
        pins = [f"{name}=={version(name)}" for name in BACKENDS]
        subprocess.run([python, "-m", "pip", "install", "--quiet", "mlflow>=3", *pins], check=True)
    return python


def clean_environment(python: Path, folder: Path) -> dict[str, str]:
    """Return the variables of a process that finds MLflow's programs, and nothing of this repository."""
    values = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**values, **store, "PATH": f"{python.parent}{os.pathsep}{values['PATH']}"}


def models(folder: Path) -> dict[tuple[str, str], tuple[Path, str]]:
    """Return models and their backends by precision and input."""
    floating, pixels = folder / "float.onnx", folder / "pixels.onnx"
    export(ExportRequest(bundled_checkpoint(), floating, preprocessing=BUNDLED_PREPROCESSING))
    export(ExportRequest(bundled_checkpoint(), pixels, preprocessing=BUNDLED_PREPROCESSING, input_form=FORM))
    found = {("fp32", "float32-nchw"): (floating, BACKENDS[0]), ("fp32", FORM): (pixels, BACKENDS[0])}
    for backend in BACKENDS:
        made = folder / f"int8.{backend}.onnx"
        calibrate(CalibrateRequest(floating, bundled_calibration_images(), made, backend, input_form=FORM))
        found[f"int8 {backend}", FORM] = made, backend
    return found


def expected(model: Path, backend: str, folder: Path, limit: int) -> npt.NDArray[Any]:
    """Return the logits of `validate`, (images, classes)."""
    kept = folder / f"{model.stem}.npz"
    validate(ValidateRequest(str(model), bundled_test_images(), backend, limit=limit, logits=kept))
    with np.load(kept) as arrays:
        return np.array(arrays["logits"])


def inputs(model: Path, limit: int, form: str) -> npt.NDArray[Any]:
    """Return the images as the model takes them, in the order of `validate`."""
    source = open_source(bundled_test_images(), preprocessing_of_file(model, PreprocessingOptions()))
    chosen = choose_indices(len(source), limit, source.labels)
    images = np.concatenate([batch.copy() for batch, _ in source.batches(BATCH, chosen)])
    return native_images(images, form.partition("-")[0], channels_last=form.endswith("nhwc"))


@contextmanager
def served(python: Path, model: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start MLflow's server with a model, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python.with_name("mlflow"), "models", "serve", "--model-uri", model, "--env-manager", "local"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = (model.parent / f"{model.name}.log").open("w")
    server = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"MLflow's server does not answer; see {log.name}") from None
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


def asked(address: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the answers of a server."""
    answers = []
    for at in range(0, len(images), BATCH):
        body = json.dumps({"inputs": images[at : at + BATCH].tolist()}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            answers += json.load(answer)["predictions"]
    return np.array(answers)


def row(name: tuple[str, str], by: str, wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> dict[str, Any]:
    """Return how many classes are the same, and the largest difference of the logits."""
    same = int((wanted.argmax(1) == found.argmax(1)).sum())
    largest = float(np.abs(wanted - found).max() / np.abs(wanted).max())
    values = {"precision": name[0], "input": name[1], "by": by, "images": len(wanted), "same_class": same, "max_rel": largest}
    print(values, flush=True)
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="folder of the environment with MLflow; made if it is new")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="JSON file for the rows")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = python_with_mlflow(args.environment or folder / "environment")
        environment = clean_environment(python, folder)
        for key, (model, backend) in models(folder).items():
            wanted, images = expected(model, backend, folder, args.images), inputs(model, args.images, key[1])
            layout = folder / f"{model.stem}-mlflow"
            lay_out(BundleRequest((model,), layout), "mlflow")
            given, found = folder / "images.npy", folder / "found.npy"
            np.save(given, images)
            subprocess.run([python, "-c", PREDICT, layout, given, found], env=environment, check=True)
            rows.append(row(key, "mlflow.pyfunc.load_model", wanted, np.load(found)))
            if key[1] == FORM:
                with served(python, layout, environment) as address:
                    rows.append(row(key, "mlflow models serve", wanted, asked(address, images)))
    if args.output:
        write_json(args.output, {"schema_version": 1, "rows": rows})
    return int(any(each["same_class"] != each["images"] for each in rows))


if __name__ == "__main__":
    sys.exit(main())
