import pytest
from refusals import refusing

from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.results.requirements import FIGURES, parse_requirements, verdict_of_interval


def test_units_are_converted():
    texts = ["drop <= 0.2, p99<=800us ,slowdown<=-3%", "throughput>=1e3/s,size<=12MB,energy<=.02J"]
    found = parse_requirements(texts)
    assert [(each.figure, each.operator, each.limit) for each in found] == [
        ("drop", "<=", 0.2),
        ("p99", "<=", pytest.approx(0.8)),
        ("slowdown", "<=", -3.0),
        ("throughput", ">=", 1000.0),
        ("size", "<=", pytest.approx(11.444, abs=1e-3)),
        ("energy", "<=", pytest.approx(20.0)),
    ]
    assert found[0].text == "drop<=0.2"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_takes_its_own_unit(name):
    (found,) = parse_requirements([f"{name}<=1{FIGURES[name].unit}"])
    assert found.limit == 1.0


@pytest.mark.parametrize("text", ["", " , ", "p99", "p99<8ms", "p99==8ms", "p99<=ms", "<=8ms", "p99<=8", "p99<=1e999ms"])
def test_what_is_no_requirement(text):
    with refusing(InputError):
        parse_requirements([text])


@pytest.mark.parametrize(
    ("text", "nearest"), [("p98<=1ms", "p99"), ("dorp<=1", "drop"), ("p99<=1MS", "ms"), ("size<=1Mib", "MiB")]
)
def test_an_unknown_figure_or_unit_gets_the_nearest(text, nearest):
    with refusing(UnknownNameError) as caught:
        parse_requirements([text])
    assert f"nearest: {nearest}" in caught.value.remedy


def test_the_interval_decides():
    upper, lower = parse_requirements(["p99<=8ms, throughput>=8/s"])
    cases = {
        (7.0, 8.0): ("pass", "undecided"),
        (8.0, 9.0): ("undecided", "pass"),
        (9.0, 9.5): ("fail", "pass"),
        (7.0, 7.5): ("pass", "fail"),
    }
    for ends, verdicts in cases.items():
        assert (verdict_of_interval(upper, *ends), verdict_of_interval(lower, *ends)) == verdicts
    assert verdict_of_interval(upper, 9.0, None) == "fail"
    assert verdict_of_interval(upper, None, None) == verdict_of_interval(lower, None, 9.0) == "undecided"
