"""Measure the page of a large sweep: time of the whole command, and size.

    python benchmarks/sweep_report.py [--cells 100] [--calls 2400] [--runs 3]

The cells are synthetic: their samples come from a fixed seed, and every cell has an accuracy, telemetry and an environment.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo.sweeps import cells_of, result_of, write_sweep

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--calls", type=int, default=2400, help="calls of each cell, a multiple of 24")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder to write the sweep and its page to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_sweep((options.keep or Path(temporary)) / "sweep", results(options.cells, options.calls))
        command = [sys.executable, "-m", "emca_deploy", "report", str(folder), "--require", "drop<=0.5, p99<=8ms"]
        seconds, processor = [], []
        for _ in range(options.runs):
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(time.perf_counter() - started)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        size = (folder / "report.html").stat().st_size
        print(f"{options.cells} cells of {options.calls} calls: {size / 1e6:.2f} MB")
        for name, values in (("seconds", seconds), ("processor seconds", processor)):
            print(f"{name}: median {statistics.median(values):.2f} ({', '.join(f'{each:.2f}' for each in values)})")


def results(cells: int, calls: int) -> list:
    models = [f"{chr(ord('a') + index)}.onnx" for index in range(-(-cells // 18))]
    matrix = cells_of(models, precisions=("fp32", "bf16", "int8"), batches=(1, 4, 8))
    return [result_of(cell, seed, calls) for seed, cell in enumerate(matrix[:cells])]


if __name__ == "__main__":
    main()
