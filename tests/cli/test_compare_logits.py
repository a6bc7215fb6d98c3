import json

import numpy as np
import pytest

from emca_deploy.cli import run
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.tasks.flips import ImageNames


def logits(images=2000, seed=0):
    return np.random.default_rng(seed).normal(size=(images, 5)).astype(np.float32)


@pytest.fixture
def kept(tmp_path):
    """Return a function that writes a run's file, and returns its path."""

    def write(name, answers, data="x", labels=None):
        path = tmp_path / f"{name}.npz"
        LogitsStore(path, {"data set": data, "model": name}).complete(Kept(answers, labels, ImageNames()))
        return path

    return write


def compare(capsys, *words):
    assert run(["compare", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_equal_files_change_nothing(kept, capsys):
    found = compare(capsys, kept("a", logits()), kept("b", logits()))
    assert (found["changed"]["images"], found["equal_images"], found["sqnr_db"]) == (0, 2000, None)
    low, high = found["changed"]["ci95"]
    assert (low, high) == (0, pytest.approx(100 * (1 - 0.025 ** (1 / 2000)), rel=1e-3))  # Clopper and Pearson, nothing of n


def test_changed_predictions_are_counted_and_named(kept, capsys):
    other = logits()
    other[:20] = np.roll(other[:20], 1, axis=1)
    labels = logits().argmax(1)
    found = compare(capsys, kept("a", logits(), labels=labels), kept("b", other))
    assert (found["changed"]["images"], found["changed"]["percent"], found["equal_images"]) == (20, 1.0, 1980)
    assert found["top1_drop"] == pytest.approx(1.0)
    assert [flip["index"] for flip in found["flips"]][:3] == [0, 1, 2]


def test_the_noise_floor_is_taken_off(kept, capsys):
    noisy, other = logits(), logits()
    noisy[:10] = np.roll(noisy[:10], 1, axis=1)  # an equal run
    other[5:40] = np.roll(other[5:40], 1, axis=1)
    found = compare(capsys, kept("a", logits()), kept("b", other), "--floor", kept("c", noisy))
    assert (found["changed"]["images"], found["floor"]["images"]) == (35, 10)
    assert found["above_floor"] == pytest.approx(100 * 25 / 2000)
    low, high = found["above_floor_ci95"]
    assert 0 < low < 1.25 < high


def test_changes_are_told_from_near_ties(kept, capsys):
    base = np.tile(np.float32([3, 1, 0]), (100, 1))
    base[:4, 1] = [2.99, 2.9, 2.7, 2.5]  # margins of 0.01, 0.1, 0.3 and 0.5
    noisy, other = base.copy(), base.copy()
    noisy[0, :2], noisy[50, 2] = (2.98, 3.01), 0.125  # differs by at most 0.125: margins up to 0.25 are near ties
    other[[1, 2, 60]] = other[[1, 2, 60]][:, [1, 0, 2]]
    found = compare(capsys, kept("a", base), kept("b", other), "--floor", kept("c", noisy))
    assert (found["floor"]["images"], found["floor_equal_images"], found["floor_largest_difference"]) == (1, 98, 0.125)
    assert (found["near_ties"], found["changed"]["images"], found["changed_without_tie"]) == (2, 3, 2)
    low, high = found["without_tie_ci95"]
    assert low < 2 < high  # percent; two images of 100 could be noise
    assert low <= 0


def test_a_floor_equal_to_the_bit_has_no_near_ties(kept, capsys):
    other = logits()
    other[:3] = np.roll(other[:3], 1, axis=1)
    found = compare(capsys, kept("a", logits()), kept("b", other), "--floor", kept("c", logits()))
    assert (found["floor_equal_images"], found["near_ties"], found["changed_without_tie"]) == (2000, 0, 3)


def test_the_text_gives_a_verdict_on_the_floor(kept, capsys):
    some, many = logits(), logits()
    some[:2], many[:20] = np.roll(some[:2], 1, axis=1), np.roll(many[:20], 1, axis=1)
    base, floor = kept("a", logits()), kept("c", logits())
    shown = []
    for name, other in (("some", some), ("many", many)):
        assert run(["compare", str(base), str(kept(name, other)), "--floor", str(floor)]) == 0
        shown.append("more than noise" in capsys.readouterr().out)
    assert shown == [False, True]


def test_one_class_never_changes(kept, capsys):
    one = logits()[:, :1]
    found = compare(capsys, kept("a", one), kept("b", one + 1), "--floor", kept("c", one))
    assert (found["near_ties"], found["changed_without_tie"]) == (0, 0)


def test_injected_changes_are_shown_above_noise_and_noise_alone_is_not(kept, capsys):
    random, noise, wrong, right, below = np.random.default_rng(5), 0.02, 0, 0, 0
    base = kept("a", logits())
    for number in range(12):
        again, equal = (logits() + random.normal(0, noise, (2000, 5)).astype(np.float32) for _ in range(2))
        other = equal.copy()
        rows = random.choice(2000, 10, replace=False)
        other[rows] = np.roll(other[rows], 1, axis=1)
        floor = ("--floor", kept(f"c{number}", again))
        for answers in (equal, other):
            found = compare(capsys, base, kept(f"b{number}", answers), *floor)
            (low, high), (low_untied, _) = found["above_floor_ci95"], found["without_tie_ci95"]
            if answers is equal:
                wrong += low > 0 or high < 0 or low_untied > 0
            else:
                right, below = right + (low_untied > 0), below + (low <= 0)
    assert wrong <= 2
    assert right >= 11
    assert below > 6  # so much noise hides them from the interval above the floor


@pytest.mark.parametrize("words", [("none.npz", "none.npz"), ("text.npz", "text.npz")])
def test_files_that_are_no_logits_are_refused(words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.npz").write_text("no arrays")
    refused("compare", *words)


def test_runs_on_other_images_are_refused(kept, refused):
    assert "different images" in refused("compare", kept("a", logits()), kept("b", logits(), data="y"))
    assert "numbers of images" in refused("compare", kept("a", logits()), kept("b", logits(10)))
