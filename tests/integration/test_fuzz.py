"""A small share of the damaged inputs of benchmarks/fuzz.py: every parser raises only our errors."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import settings

FOLDER = Path(__file__).parents[2] / "benchmarks"
EACH = settings.default.max_examples


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", FOLDER / "fuzz.py")
    sys.path.insert(0, str(FOLDER))
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def test_no_parser_raises_anything_else_or_takes_long(fuzz, tmp_path, monkeypatch):
    monkeypatch.delenv("EMCA_DEPLOY_DEVICES", raising=False)
    tallies = [fuzz.Tally(target) for target in fuzz.targets(tmp_path)]
    failures = fuzz.run(tallies, 0, EACH)
    assert [(failure.name, failure.number, failure.what) for failure in failures] == []
    assert all(tally.done == EACH for tally in tallies)
    assert sum(tally.refused > 0 for tally in tallies) > 25, "the inputs are not damaged enough to be refused"


def test_a_parser_that_fails_is_found(fuzz):
    target = fuzz.Target("x", "text", (b"1 2 3",), lambda data: int(data) // 0)
    failures = fuzz.run([fuzz.Tally(target)], 0, 20)
    assert len(failures) == 20
