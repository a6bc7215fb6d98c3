"""Deploy the bundled network from checkpoint to INT8 engines with the Python API, step by step, in a few minutes.

    python examples/deploy_from_python.py OUT

Each step could be a cell of a notebook. `emca_deploy.deploy` runs all of them in one call; separate steps show what each returns.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import emca_deploy as ed
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_checkpoint, bundled_test_images
from emca_deploy.errors import EmcaError


@contextmanager
def told(stage: str) -> Iterator[None]:
    """Print the name of a stage; pass this as `stage` to operations with several."""
    print(f"... {stage}")
    yield None  # no progress bar


def main(out: Path) -> None:
    """Export, calibrate, build, measure and validate."""
    out.mkdir(exist_ok=True)
    fp32, int8, engine = out / "model.onnx", out / "model.int8.onnx", out / "model.ort.onnx"

    exported = ed.export(ed.ExportRequest(bundled_checkpoint(), fp32, preprocessing=BUNDLED_PREPROCESSING))
    print("parity with PyTorch:", ed.to_json(exported)["parity"])

    request = ed.CalibrateRequest(fp32, bundled_calibration_images(), int8, backend="onnxruntime", samples=100, recover="bias")
    calibrated = ed.calibrate(request, told)
    print(f"{calibrated.calibration.coverage.int8_macs_percent:.1f}% of the multiply-adds in INT8")

    ed.build(ed.BuildRequest(str(int8), "onnxruntime", str(engine), batch=1))
    measured = ed.profile(ed.ProfileRequest((str(fp32), str(engine)), duration_s=2.0, processes=2))
    for comparison in measured.comparisons:
        print(f"{comparison.a}: {comparison.ratio_p50:.2f} times as fast as {comparison.b}, 95%: {comparison.ratio_ci95}")

    checked = ed.validate(
        ed.ValidateRequest(str(int8), bundled_test_images(), reference=str(fp32), max_drop=1.0, limit=500), told
    )
    print(f"top-1 {checked.accuracy.top1}%; within one point of fp32: {checked.verdict is not None and checked.verdict.reached}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
    except EmcaError as error:
        sys.exit(f"{error.problem}\n  try: {error.remedy}")
