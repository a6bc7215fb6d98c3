"""What a search for a placement keeps: only what is shown to be faster, and worth what its logits give up."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emca_deploy.api.placing.search import PlacementSearch, _bits_for, _result, _Trials
from emca_deploy.api.placing.variants import Fidelity
from emca_deploy.backends.registry import find_recipe
from emca_deploy.harness.measure.tuning import Found, Search, search
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.reporting.placement import placement_lines
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.placement import MeasuredPlacement
from emca_deploy.results.tuning import Trial, Tunable

HOW = PlacementSearch(Path("images"), budget_s=20.0)
NOISE = {"recipe": 0.01, "exact": 0.01, "costly": 0.02}
"""Error of each model's logits relative to fp32's: 40 and 34 dB."""


class Files:
    """INT8 models as files that only name their choice; the fake backend runs each with the latency of its choice."""

    def __init__(self, folder: Path, latency_ms: dict[str, float]) -> None:
        self.folder, self.latency_ms = folder, latency_ms

    def write(self, values, path):
        path.write_text(str(values.get("choice", "recipe")))

    def candidate(self, name, path):
        artifact = f"fake:latency_ms={self.latency_ms[path.read_text()]}"
        return RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, backend="fake")

    def logits(self, path):
        reference = np.linspace(1, 2, 20, dtype=np.float32).reshape(4, 5)
        return reference if path.name == "model.onnx" else reference * np.float32(1 + NOISE[path.read_text()])


def searched(folder: Path, latency_ms: dict[str, float]) -> MeasuredPlacement:
    files = Files(folder, latency_ms)
    fidelity = Fidelity(files.logits, folder / "model.onnx", files.write, folder / "fidelity.onnx")
    runs = SimpleNamespace(backend="fake", candidate=files.candidate)
    trials = _Trials(files, runs, folder, fidelity, {"choice": "recipe"})
    space = (Tunable("choice", "recipe", tuple(name for name in latency_ms if name != "recipe")),)
    found = search(space, Search(trials.make, budget_s=HOW.budget_s, worth=trials.worth))
    return _result(found, trials, HOW)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("latency_ms", "kept"),
    [
        ({"recipe": 4.0, "exact": 5.0}, {}),  # slower
        ({"recipe": 4.0, "exact": 4.0}, {}),  # equal
        ({"recipe": 4.0, "exact": 3.0}, {"choice": "exact"}),
        ({"recipe": 4.0, "costly": 3.0}, {}),  # 33% for 6 dB, which would have to gain 60%
        ({"recipe": 4.0, "costly": 2.0}, {"choice": "costly"}),  # 100% for 6 dB
        ({"recipe": 4.0, "costly": 2.9, "exact": 3.0}, {"choice": "exact"}),
    ],
)
def test_only_what_is_faster_and_worth_its_cost_is_kept(tmp_path, latency_ms, kept):
    found = searched(tmp_path, latency_ms)
    assert found.choices == kept
    assert found.recipe_sqnr_db == pytest.approx(40.0, abs=0.01)
    if kept:
        assert found.verdict == "faster"
        assert found.ratio_ci95[0] > 1
        assert found.lost_db == pytest.approx(6.02 if kept["choice"] == "costly" else 0.0, abs=0.01)
        assert found.lost_db_per_percent == pytest.approx(found.lost_db / (100 * (found.ratio - 1)))
    assert from_json(MeasuredPlacement, to_json(found)) == found


def test_a_winner_without_a_last_round_is_not_used_and_says_so(tmp_path):
    files = Files(tmp_path, {"recipe": 4.0, "exact": 3.0})
    fidelity = Fidelity(files.logits, tmp_path / "model.onnx", files.write, tmp_path / "fidelity.onnx")
    trials = _Trials(files, SimpleNamespace(backend="fake"), tmp_path, fidelity, {"choice": "recipe"})
    found = _result(Found(best={"choice": "exact"}), trials, HOW)
    assert (found.choices, found.is_settled) == ({}, False)
    assert "--placement-budget" in placement_lines(found)[-1]


def test_logits_are_run_once_for_the_same_choices(tmp_path):
    files = Files(tmp_path, {})
    seen: list[str] = []

    def logits(path):
        seen.append(path.name)
        return files.logits(path)

    fidelity = Fidelity(logits, tmp_path / "model.onnx", files.write, tmp_path / "fidelity.onnx")
    trials = _Trials(files, SimpleNamespace(backend="fake"), tmp_path, fidelity, {"choice": "recipe"})
    costly = Trial({"choice": "costly"}, 1.0, 1.0, 1.5, (1.4, 1.6))
    assert trials.worth(costly) == trials.worth(costly) == pytest.approx(1.5 - 0.602, abs=0.001)
    assert trials.worth(Trial({"choice": "exact"}, 1.0, 1.0, 0.9, (0.8, 1.0))) == 0.9  # slower: its logits do not matter
    assert seen == ["model.onnx", "fidelity.onnx", "fidelity.onnx"]


@pytest.mark.parametrize(
    ("sets", "architecture", "bits"),
    [(["avx2"], "x86_64", 7), (["avx2", "avx_vnni"], "x86_64", 8), (["asimddp"], "aarch64", 8)],
)
def test_the_processor_of_the_target_decides_the_bits_of_weights(sets, architecture, bits):
    machine = {"cpu": "a processor", "architecture": architecture, "instruction_sets": sets}
    assert _bits_for(find_recipe("openvino"), machine) == bits
