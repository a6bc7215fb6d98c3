"""Formats of numbers and of foreign text."""

import pytest

from emca_deploy.reporting.formats import facts, fixed, moment, plain, signed, significant, uniform


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (0, "0.00")]
)
def test_three_significant_digits(value, text):
    assert significant(value) == text


def test_never_a_negative_zero():
    assert fixed(-0.001) == "0.00"
    assert signed(-0.001) == "0.00"


def test_changes_have_signs():
    assert (signed(0.05), signed(-0.05)) == ("+0.05", "-0.05")


def test_a_column_has_the_same_decimals():
    assert uniform([10.37, 2.36, 0.0]) == ["10.37", "2.36", "0.00"]


def test_foreign_text_is_one_harmless_line():
    assert plain("a\x1b[2J\nb\x00\ud800é") == "a?[2J b??é"


def test_time_is_utc():
    assert moment("2026-01-02T03:04:05+02:00") == "2026-01-02 01:04 UTC"
    assert moment("yesterday") == "yesterday"


def test_facts_carry_units_and_say_what_is_unknown():
    record = {
        "memory_mib": 2048.0,
        "cpu": {"frequency_mhz": 2600.5, "governor": None},
        "sets": ["a", "b"],
        "smt": True,
        "none": {},
    }
    assert facts(record) == [
        ("memory", "2,048 MiB"),
        ("cpu: frequency", "2,600.5 MHz"),
        ("cpu: governor", "unknown"),
        ("sets", "a, b"),
        ("smt", "yes"),
        ("none", "-"),
    ]
