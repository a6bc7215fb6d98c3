"""Give every parser damaged inputs: it may raise only our errors, and may take at most a second of processor time.

    python benchmarks/fuzz.py --total 1000000 --least 10000
    python benchmarks/fuzz.py --total 4000 --only tegrastats

A parser's name and a number determine an input: --only NAME --first NUMBER --total 1 reproduces a failure.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_inputs import mutate
from fuzz_targets import Target, targets

from emca_deploy.errors import EmcaError

MOST_S = 1.0
HUNG_S = 20
ROUND = 500


class Hung(BaseException):
    """Parsing an input takes too long."""


@dataclass
class Tally:
    """Results of a parser's inputs."""

    target: Target
    done: int = 0
    refused: int = 0
    longest_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """An input that made a parser fail."""

    name: str
    number: int
    what: str
    data: bytes


def one(tally: Tally, number: int) -> Failure | None:
    """Give a parser its input with this number."""
    target = tally.target
    random = Random(f"{target.name}/{number}")
    data = mutate(target.kind, random.choice(target.seeds), random)
    started = time.process_time()
    what = ""
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, HUNG_S)
        target.parse(data)
    except EmcaError:
        tally.refused += 1
    except target.allowed:
        tally.refused += 1
    except Hung:
        what = f"still running after {HUNG_S} s of processor time"
    except Exception as exc:
        place = traceback.extract_tb(exc.__traceback__)[-1]
        what = f"{type(exc).__name__}: {str(exc)[:200]} ({Path(place.filename).name}:{place.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    taken = time.process_time() - started
    tally.done += 1
    tally.seconds += taken
    tally.longest_s = max(tally.longest_s, taken)
    if not what and taken > MOST_S:
        what = f"took {taken:.1f} s of processor time"
    return Failure(target.name, number, what, data) if what else None


def run(tallies: Sequence[Tally], total: int, least: int, first: int = 0) -> list[Failure]:
    """Give every parser the least number of inputs, and the fast ones more until the total is reached."""

    def hang(*_: object) -> None:
        raise Hung

    signal.signal(signal.SIGVTALRM, hang)
    warnings.simplefilter("ignore")
    failures: list[Failure] = []
    for tally in tallies:
        for number in range(first, first + least):
            failures += filter(None, [one(tally, number)])
    while tallies and sum(tally.done for tally in tallies) < total:
        tally = min(tallies, key=lambda each: (each.seconds / max(each.done, 1)) * (1 + each.done / 50_000))
        for number in range(first + tally.done, first + tally.done + min(ROUND, total - sum(each.done for each in tallies))):
            failures += filter(None, [one(tally, number)])
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--total", type=int, default=1_000_000, help="total number of inputs")
    parser.add_argument("--least", type=int, default=0, help="minimum number of inputs per parser")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", action="append", help="parser name; may be repeated")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the counts and failures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        tallies = [Tally(one) for one in targets(Path(folder)) if not options.only or one.name in options.only]
        failures = run(tallies, options.total, options.least, options.first)
    for tally in tallies:
        counts, mean_ms = f"{tally.done:8} inputs, {tally.refused:8} refused", 1000 * tally.seconds / max(tally.done, 1)
        print(f"{tally.target.name:24} {counts}, {mean_ms:7.2f} ms, longest {tally.longest_s:.2f} s")
    for failure in failures[:50]:
        print(f"FAILED {failure.name} {failure.number}: {failure.what}")
    done, seconds = sum(tally.done for tally in tallies), sum(tally.seconds for tally in tallies)
    print(f"{done} inputs of {len(tallies)} parsers in {seconds:.0f} s of processor time, {len(failures)} failures")
    if options.output is not None:
        parsers = {
            tally.target.name: {"inputs": tally.done, "refused": tally.refused, "longest_s": round(tally.longest_s, 3)}
            for tally in tallies
        }
        found = [{"parser": failure.name, "number": failure.number, "what": failure.what} for failure in failures]
        document = {"inputs": done, "parsers": parsers, "failures": found}
        options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
