"""Our INT8 against NNCF's, ONNX Runtime's and NVIDIA Model Optimizer's: accuracy, latency and what calibration costs.

    make bench-peers                                    # all of it, with the peers in a virtual environment of their own
    python benchmarks/quantization.py --parts accuracy  # the bundled network; peers that are not installed are left out
    python benchmarks/quantization.py --checkpoints benchmarks/families --output result.json

Everybody gets the same fp32 ONNX file and the same calibration images, in a process of its own, and is held against the same
fp32 logits. Model Optimizer's and our TensorRT models run in ONNX Runtime, which simulates TensorRT's arithmetic, not its
kernels. Figures go to --output as they come; stopped, the same command goes on where it was.
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
    add("--parts", default=",".join(PARTS), help="which of accuracy,latency,cost; all when not given")
    add("--arch", action="append", default=[], help="only this architecture; may be repeated")
    add(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only quantizers of such a name, as 'ours*'; may be repeated",
    )
    add("--checkpoints", type=Path, help="folder of train_families.py: accuracy is compared on these networks, too")
    add("--image-size", type=int, default=48, help="pixels, that those were trained at")
    add("--images", type=int, default=300, help="for calibration, where accuracy is compared")
    add("--limit", type=int, help="test images; all when not given")
    add(
        "--data",
        type=Path,
        default=FASHION_MNIST,
        help="folder of Fashion-MNIST's idx files; else 2,000 bundled test images serve",
    )
    add("--recover", action="append", default=[], metavar="LEVEL", help="of our calibration; repeated, each gets its rows")
    add("--duration", type=float, default=10.0, help="seconds of measuring the latency of each candidate")
    add("--cost-images", type=int, nargs=2, default=[100, 800], metavar=("FEW", "MANY"), help="that calibration is timed with")
    add("--repeats", type=int, default=3, help="of each timing of calibration")
    add("--threads", type=int, default=default_threads())
    add("--memory-gib", type=float, help="the most that one quantization may take; half of this machine's when not given")
    add("--output", type=Path, default=Path("quantization.json"), help="results, raw; gone on with when it is there")
    add("--again", action="store_true", help="measure anew what is in there already")
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
        print(f"stopped; what was measured is in {args.output}, and the same command goes on with it", file=sys.stderr)
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
