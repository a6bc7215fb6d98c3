"""The part to keep in float next, and the number of images that a gate needs."""

import pytest

from emca_deploy.api.gate_search.ranking import float_macs_percent, next_kept
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitSensitivity
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.stats.paired import images_needed, upper_end_without_difference


def unit(name, harm, macs, kind="layer"):
    pattern = name + (".*" if kind == "block" else "")
    return UnitSensitivity(name, kind, pattern, 1, macs, Cost(40.0, 0.0), Cost(40.0, 0.0), harm, harm)


def ranking(*units):
    return SensitivityReport("m", "openvino", "onnxruntime", "minmax", 1, 1, 0, Cost(30.0, 0.0), units)


def path_of(report):
    kept, path = (), []
    while (kept := next_kept(report, kept)) is not None:
        path.append(kept)
    return path


def test_most_harm_for_its_cost_comes_first_and_the_harmless_never():
    report = ranking(unit("dear", 30.0, 40.0), unit("cheap", 20.0, 5.0), unit("free", 0.9, 0.0), unit("good", -4.0, 1.0))
    assert path_of(report) == [("cheap",), ("cheap", "dear")]


def test_a_block_takes_the_place_of_its_layers_and_is_credited_with_what_it_adds_only():
    inner = unit("b.conv1", 10.0, 5.0), unit("b.conv2", 8.0, 5.0)
    block = unit("b", 22.0, 10.0, "block")
    assert path_of(ranking(*inner, block)) == [("b.*",)]  # together twice the error, for one overhead
    assert path_of(ranking(inner[0], unit("b.conv2", 2.0, 30.0), unit("b", 14.0, 35.0, "block"))) == [("b.conv1",), ("b.*",)]
    assert path_of(ranking(inner[0], unit("b", 10.5, 35.0, "block"))) == [("b.conv1",)]


def test_a_name_that_begins_like_a_block_is_not_in_it():
    report = ranking(unit("s.block1", 20.0, 5.0, "block"), unit("s.block1.conv", 20.0, 5.0), unit("s.block10.conv", 5.0, 5.0))
    assert path_of(report)[-1] == ("s.block1.*", "s.block10.conv")


def test_most_of_the_network_stays_in_int8():
    report = ranking(unit("a", 50.0, 40.0), unit("b", 40.0, 40.0), unit("c", 5.0, 20.0))
    assert path_of(report) == [("a",), ("a", "c")]
    assert float_macs_percent(report, ("a", "c")) == pytest.approx(60.0)
    assert float_macs_percent(report, ()) == 0


@pytest.mark.parametrize(("lost", "won", "images", "gate"), [(0, 0, 500, 0.5), (10, 5, 2000, 0.5), (45, 30, 2000, 1.5)])
def test_so_many_images_would_do_and_far_fewer_would_not(lost, won, images, gate):
    needed = images_needed(lost, won, images, gate)

    def upper(total):
        return 100 * paired_difference_ci(round(lost * total / images), round(won * total / images), total)[1]

    assert images < needed
    assert upper(needed) <= gate
    assert upper(int(needed * 0.85)) > gate


def test_no_number_of_images_helps_where_the_drop_itself_is_outside():
    assert images_needed(10, 0, 1000, 1.0) is None
    assert images_needed(0, 0, 1000, 0.0) is None


def test_the_narrowest_interval():
    assert upper_end_without_difference(3838) == pytest.approx(0.1, abs=0.001)
