"""Printing of foreign text."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy._text import encodable, parse_duration, printable, printable_lines, shell_line, shell_word

CONTROL = st.sampled_from("\x00\x07\x08\x0b\x1b\x7f\x85\x9b\xa0\u200b\u202e\u2028\udc80")
HOSTILE = st.text(st.one_of(st.characters(codec=None), CONTROL), max_size=40)


@given(HOSTILE)
def test_printable_text_has_nothing_that_a_terminal_obeys(text):
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@given(HOSTILE)
def test_lines_keep_their_line_feeds_only(text):
    assert printable_lines(text).count("\n") == text.count("\n")
    assert printable_lines(text).replace("\n", "").isprintable()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text):
    assert printable(text) == text


def can_be_a_word(text):
    """Return whether this can be a process's argument: it has no NUL and no surrogates except those that represent bytes."""
    return "\x00" not in text and not any("\ud800" <= char < "\udc80" or "\udcff" < char <= "\udfff" for char in text)


@given(st.lists(HOSTILE.filter(can_be_a_word), max_size=4))
def test_a_pasted_command_line_is_printable_and_gives_the_words_back(words):
    line = shell_line(["printf", "%s\\0", *words])
    assert line.isprintable()
    out = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    expected = words or [""]  # printf prints its format once where it has no arguments
    assert out == b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in expected)


def test_harmless_words_are_quoted_as_ever():
    assert shell_word("model.onnx") == "model.onnx"
    assert shell_word("my model.onnx") == "'my model.onnx'"


def test_a_surrogate_that_no_file_name_has_is_escaped_all_the_same():
    assert shell_word("a\udd00b") == "$'a\\xed\\xb4\\x80b'"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), ("500ms", 0.5), (".5", 0.5), ("2.", 2), ("1e2", 100)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 s", "-1", "1d", "1m30s", "nan", "inf", "1e999", "٣"])
def test_what_is_no_duration(text):
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("4.9 (\u2264 5.2)", "ascii", "4.9 (< 5.2)"),
        ("4.9 (\u2264 5.2)", "utf-8", "4.9 (\u2264 5.2)"),
        ("\u2588\u2593 caf\u00e9", "ascii", "#= caf?"),
        ("caf\u00e9", "latin-1", "caf\u00e9"),
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced(text, encoding, shown):
    assert encodable(text, encoding) == shown
