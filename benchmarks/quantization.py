"""Compare our INT8 with that of NNCF, ONNX Runtime and NVIDIA Model Optimizer: accuracy, latency and cost of calibration.

    make bench-peers                                    # all of it, with the peers in a virtual environment of their own
    python benchmarks/quantization.py --parts accuracy  # the bundled network; peers that are not installed are left out
    python benchmarks/quantization.py --checkpoints benchmarks/families --output result.json

Every quantizer gets the same fp32 ONNX file and the same calibration images in its own process, and is compared with the same
fp32 logits. Model Optimizer's and our TensorRT models run in ONNX Runtime, which simulates TensorRT's arithmetic, not its
kernels. Each figure is written to --output at once; after a stop, the same command continues from there.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from peers import accuracy, cost, latency
from peers.candidates import recovery_default
from peers.settings import Run
from peers.store import Store
from peers.subjects import FASHION_MNIST
from rich.console import Console

from emca_deploy._machine import default_threads, read_memory_mib
from emca_deploy.errors import EmcaError, InputError

PARTS = {part.PART: part for part in (accuracy, latency, cost)}
WIDTH = 150


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), help="some of accuracy,latency,cost; default all")
    add("--arch", action="append", default=[], help="only this architecture; may be repeated")
    add(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only quantizers whose name matches, such as 'ours*'; may be repeated",
    )
    add("--checkpoints", type=Path, help="folder of train_families.py; accuracy is also compared on its networks")
    add("--image-size", type=int, default=48, help="image size of those networks in pixels")
    add("--images", type=int, default=300, help="number of calibration images in the accuracy part")
    add("--limit", type=int, help="number of test images; default all")
    add(
        "--data",
        type=Path,
        default=FASHION_MNIST,
        help="folder of Fashion-MNIST's idx files; default the 2,000 bundled test images",
    )
    add(
        "--recover",
        action="append",
        default=[],
        metavar="LEVEL",
        help="level of recovery of our calibration; may be repeated, one row each",
    )
    add("--duration", type=float, default=10.0, help="measuring time of each candidate's latency in seconds")
    add(
        "--cost-images", type=int, nargs=2, default=[100, 800], metavar=("FEW", "MANY"), help="numbers of images in the cost part"
    )
    add("--repeats", type=int, default=3, help="repeats of each timing of calibration")
    add("--threads", type=int, default=default_threads())
    add("--memory-gib", type=float, help="memory limit of one quantization; default half of this machine's")
    add("--output", type=Path, default=Path("quantization.json"), help="raw results; an existing file is continued")
    add("--again", action="store_true", help="measure existing results again")
    return parser.parse_args()


def _run(args: argparse.Namespace, folder: Path, console: Console) -> Run:
    default = recovery_default()
    if args.recover and default is None:
        raise InputError("--recover: this version of emca-deploy has no recovery", "leave it out")
    memory_mib = args.memory_gib * 1024 if args.memory_gib else (read_memory_mib() or 8192) / 2
    return Run(
        store=Store(args.output.absolute(), again=args.again),
        folder=folder,
        archs=args.arch,
        levels=args.recover or [default],
        images=args.images,
        limit=args.limit,
        threads=args.threads,
        memory_mib=memory_mib,
        only=args.only,
        tell=lambda line: console.print(line, style="dim", highlight=False, soft_wrap=True),
        data=args.data,
        checkpoints=args.checkpoints,
        image_size=args.image_size,
        duration_s=args.duration,
        cost_images=(args.cost_images[0], args.cost_images[1]),
        repeats=args.repeats,
    )


def _measure(args: argparse.Namespace, parts: list[str], console: Console) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = _run(args, Path(folder), Console(stderr=True))
        stopped = False
        try:
            for name in parts:
                PARTS[name].run(run)
        except KeyboardInterrupt:
            stopped = True
        for name in parts:
            rows = [row for row in run.rows if row.part == name]
            if rows:
                PARTS[name].show(rows, console)
    if stopped:
        print(f"stopped; the results so far are in {args.output}, and the same command continues from there", file=sys.stderr)
        return 130
    console.print(f"raw results: {args.output}")
    return 0


def main() -> int:
    """Measure, print the tables, and keep the raw results."""
    args = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    parts = args.parts.split(",")
    try:
        for name in parts:
            if name not in PARTS:
                raise InputError(f"--parts {args.parts}: no part '{name}'", f"name some of {','.join(PARTS)}")
        return _measure(args, parts, console)
    except EmcaError as exc:
        print(f"{exc.problem}\n{exc.remedy}", file=sys.stderr)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
