"""The recommended candidate, cases without a recommendation, and the wording."""

from dataclasses import dataclass, replace

from emca_deploy.reporting.recommendation import cautions_of, choices_of, sentence_of, warnings_of
from emca_deploy.results.recommendation import recommend


@dataclass
class Told:
    """A recommendation with its text."""

    level: str
    candidate: str | None
    sentence: str
    cautions: tuple[str, ...]


def decide(report):
    found = recommend(report)
    return Told(found.level, found.use, sentence_of(report, found), tuple(cautions_of(found)))


def test_recommends_the_fastest_within_half_a_point(typical):
    verdict = decide(typical)
    assert (verdict.level, verdict.candidate, verdict.cautions) == ("recommended", "openvino int8", ())
    assert verdict.sentence == (
        "openvino int8: 3.6x faster than onnxruntime fp32 at -0.05 points of top-1 (95% interval -0.30 to +0.15); recommended."
    )


def test_passes_over_a_faster_one_that_loses_too_much_and_says_so(report, candidate):
    verdict = decide(report(candidate(p50_ms=2.0, drop=0.51), candidate("openvino fp32", p50_ms=5.0, drop=0.0)))
    assert verdict.candidate == "openvino fp32"
    assert any("openvino int8 is faster still (4.2x) but at -0.51 points" in caution for caution in verdict.cautions)


def test_exactly_half_a_point_is_allowed(report, candidate):
    assert decide(report(candidate(drop=0.5, drop_ci=(0.45, 0.5)))).level == "recommended"


def test_keeps_the_baseline_where_every_faster_one_loses_too_much(report, candidate):
    verdict = decide(report(candidate(drop=1.2)))
    assert (verdict.level, verdict.candidate) == ("keep", "onnxruntime fp32")
    assert "-1.20 points" in verdict.sentence


def test_keeps_the_baseline_where_nothing_is_faster(report, candidate):
    verdict = decide(report(candidate(p50_ms=9.0)))
    assert (verdict.level, verdict.candidate) == ("keep", "onnxruntime fp32")


def test_a_baseline_alone_is_kept(report):
    assert decide(report()).level == "keep"


def test_a_wide_interval_of_the_drop_is_a_caution(report, candidate):
    verdict = decide(report(candidate(drop_ci=(-0.9, 1.0))))
    assert (verdict.level, verdict.candidate) == ("caution", "openvino int8")
    assert "recommended" not in verdict.sentence
    assert "4,000 images" in verdict.cautions[0]
    assert "-0.90 to 1.00 points" in verdict.cautions[0]


def test_one_shown_to_be_within_half_a_point_goes_before_a_faster_one_that_may_not_be(report, candidate):
    sure = candidate("openvino fp32", p50_ms=5.0, drop=0.0)
    told = report(candidate(p50_ms=2.0, drop=0.2, drop_ci=(-0.4, 0.8)), sure)
    verdict = decide(told)
    assert (verdict.level, verdict.candidate) == ("recommended", "openvino fp32")
    assert any("openvino int8 is faster still (4.2x)" in caution and "-0.80 to +0.40" in caution for caution in verdict.cautions)
    lost = {each.name: each.outcome for each in choices_of(told)[0].lost}
    assert lost == {"onnxruntime fp32": "slower", "openvino int8": "undecided"}


def test_every_candidate_that_is_not_used_has_a_reason(typical, report, candidate):
    (choice,) = choices_of(typical)
    assert {each.name: each.outcome for each in choice.lost} == {
        "onnxruntime fp32": "slower", "openvino fp32": "slower", "onnxruntime int8": "slower",
    }  # fmt: skip
    assert all(each.reason for each in choice.lost)
    (kept,) = choices_of(report(candidate(drop=1.2, drop_ci=(0.9, 1.5)), candidate("torch fp32", p50_ms=9.0, drop=0.0)))
    assert {each.name: each.outcome for each in kept.lost} == {"openvino int8": "loses too much", "torch fp32": "slower"}
    assert choices_of(report(candidate(labels=False), baseline_changes={"labels": False}))[0].lost == []


def test_an_unstable_measurement_is_a_caution(report, candidate):
    verdict = decide(report(candidate(stable=False)))
    assert verdict.level == "caution"
    assert "recommended" not in verdict.sentence
    assert "openvino int8 was not stable" in verdict.cautions[0]


def test_an_unstable_baseline_is_a_caution_too(report, candidate):
    verdict = decide(report(candidate(), baseline_changes={"stable": False}))
    assert verdict.level == "caution"
    assert "onnxruntime fp32 was not stable" in verdict.cautions[0]


def test_somebody_elses_instability_is_not(report, candidate):
    verdict = decide(report(candidate(), candidate("torch fp32", p50_ms=7.0, drop=0.0, stable=False)))
    assert verdict.level == "recommended"


def test_a_speed_up_that_may_be_none_is_not_recommended(report, candidate):
    verdict = decide(report(candidate(p50_ms=8.3, speedup_ci=(0.97, 1.06))))
    assert (verdict.level, verdict.candidate) == ("keep", "onnxruntime fp32")
    assert "no clear gain" in verdict.sentence


def test_names_one_that_may_be_as_fast_and_loses_less(report, candidate):
    fp32 = candidate("openvino fp32", p50_ms=2.4, drop=0.0, speedup_ci=(3.4, 3.7))
    assert any("openvino fp32 may be as fast" in caution for caution in decide(report(candidate(), fp32)).cautions)


def test_without_labels_nothing_is_recommended(report, candidate):
    verdict = decide(report(candidate(labels=False), baseline_changes={"labels": False}))
    assert (verdict.level, verdict.candidate) == ("unknown", None)
    assert "99.10% of the images" in verdict.sentence
    assert "no labels" in verdict.sentence


def test_a_gain_reads_as_a_gain(report, candidate):
    assert "+0.10 points" in decide(report(candidate(drop=-0.1))).sentence


def test_each_warning_is_told_once(report, candidate):
    changes = {"warnings": ["busy", "busy"]}
    told = warnings_of(report(candidate(warnings=["busy", "hot"]), baseline_changes=changes))
    assert told == [("", "busy"), ("openvino int8", "hot")]


def test_warnings_that_differ_in_numbers_are_told_together(report, candidate):
    drifted = "latency drifted by {}: let it settle (p99.9)"
    told = warnings_of(
        report(
            candidate(warnings=[drifted.format("+15%")]),
            candidate("openvino fp32", warnings=[drifted.format("-64%"), "1,200 calls"]),
            candidate("torch fp32", warnings=[drifted.format("+15%")]),
        )
    )
    assert told == [
        ("openvino int8, openvino fp32, torch fp32", "latency drifted by +15%/-64%: let it settle (p99.9)"),
        ("openvino fp32", "1,200 calls"),
    ]


def test_low_agreement_is_a_caution_even_without_a_drop(report, candidate):
    verdict = decide(report(candidate(drop=0.0, agreement=71.5)))
    assert verdict.level == "caution"
    assert "another class than the baseline for 28.50%" in verdict.cautions[0]


def test_a_detector_is_judged_by_its_worst_average_precision(detector):
    assert recommend(detector).level == "recommended"
    best = detector.candidates[1]

    def judged(**changes):
        accuracy = replace(best.accuracy, reference=replace(best.accuracy.reference, **changes))
        return recommend(replace(detector, candidates=(detector.candidates[0], replace(best, accuracy=accuracy))))

    wide = judged(mask_ap_drop_ci95=(-1.0, 1.3))
    assert (wide.level, wide.doubts) == ("caution", ("drop unsure",))
    assert "-1.00 to 1.30" in cautions_of(wide)[0]
    lossy = judged(mask_ap_drop=0.9)
    assert (lossy.level, lossy.use) == ("keep", detector.baseline)
    assert "-0.90 points of mask AP" in sentence_of(detector, lossy)
    assert judged(agreement=80.0).doubts == ("agreement",)
    assert judged(box_ap_drop=None, box_ap_drop_ci95=None, mask_ap_drop=None, mask_ap_drop_ci95=None).level == "unknown"
