import numpy as np
import pytest

from emca_deploy.api.checking.corruptions import Corruptions
from emca_deploy.data.corruptions.registry import chosen_corruptions
from emca_deploy.harness.accuracy.corruption_cells import Cells, looks_for
from emca_deploy.stats.estimates import paired_difference_ci


def test_looks_double_until_all_images():
    assert looks_for(60) == (60,)
    assert looks_for(250) == (250,)
    assert looks_for(1100) == (250, 500, 1000, 1100)


def answered(cells, look, lost):
    """Give every open cell its images of a look; the candidate loses a share of them to class 0."""
    for cell in cells.open():
        count = look - cell.images
        labels = np.ones(count, np.int64)
        own = labels.copy()
        own[: round(lost.get(cell.strength, 0) * count)] = 0
        cells.add(cell, own, labels)


def test_cells_stop_where_the_whole_interval_is_on_one_side():
    cells = Cells(chosen_corruptions("fog"), np.ones(1000, np.int64), 3, max_drop=3.0)
    lost = {2: 0.02, 5: 0.2}
    for look in cells.looks:
        answered(cells, look, lost)
    report = cells.report(("a", "b", "c"))
    (kind,) = report.kinds
    assert [(cell.verdict, cell.images) for cell in kind.cells] == [
        ("within", 250), ("undecided", 1000), ("within", 250), ("within", 250), ("above", 250)
    ]  # fmt: skip
    assert report.verdicts == {"within": 3, "above": 1, "undecided": 1}
    (warning,) = Corruptions.warnings(report)
    assert "1 of 5" in warning
    assert "fog at strength 5" in warning
    last = kind.cells[-1]
    low, high = paired_difference_ci(50, 0, 250, 1 - 0.05 / 3)
    assert (last.drop, last.drop_ci95) == (20, pytest.approx((100 * low, 100 * high)))
    assert (last.lost, last.won, last.top1, last.reference_top1) == (50, 0, 80, 100)
    assert (report.worst_kind, report.worst_strength, report.worst_class.name) == ("fog", 5, "b")
    assert report.drop == kind.drop == pytest.approx((2 + 20) / 5)
    assert report.worst_class.images == 4 * 250 + 1000
    assert report.worst_class.recall == pytest.approx(100 * (1 - 70 / 2000))


def test_without_a_limit_a_narrow_interval_is_enough():
    cells = Cells(chosen_corruptions("fog"), np.ones(4000, np.int64), 2, max_drop=None)
    for look in cells.looks:
        answered(cells, look, {1: 0.3})
    report = cells.report(())
    assert [cell.images for cell in report.kinds[0].cells] == [4000, 2000, 2000, 2000, 2000]
    assert {cell.verdict for cell in report.kinds[0].cells} == {None}
    assert report.worst_class.name == "1"


def test_the_interval_holds_over_all_looks():
    """Of 200 cells whose true drop is the limit, at most 5% are decided."""
    random, decided = np.random.default_rng(0), 0
    for _ in range(40):
        cells = Cells(chosen_corruptions("fog"), np.ones(2000, np.int64), 2, max_drop=2.0)
        for look in cells.looks:
            for cell in cells.open():
                count = look - cell.images
                draw = random.random(count)
                cells.add(cell, (draw >= 0.04).astype(np.int64), ((draw < 0.04) | (draw >= 0.06)).astype(np.int64))
        decided += sum(cell.verdict != "undecided" for cell in cells.report(()).kinds[0].cells)
    assert decided <= 10
