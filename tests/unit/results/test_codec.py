"""Records to JSON and back: versions, absent values, and the place of a wrong value."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from emca_deploy.errors import DataError, InputError
from emca_deploy.results.codec import from_json, left_out, misfit, read_json, to_json, version


@dataclass(frozen=True)
class Part:
    name: str
    share: float = 0.0


@dataclass(frozen=True)
class Whole:
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    limits: tuple[float, float] | None = None
    by_name: dict[str, int | str] = field(default_factory=dict)
    place: Path = Path("x")
    rest: dict[str, Any] = left_out(dict)
    count: int | None = left_out()
    schema_version: int = version(3, {1: lambda values: {**values, "parts": []}, 2: lambda values: {**values, "kind": "b"}})

    def contradiction(self) -> str:
        return "limits are in the wrong order" if self.limits and self.limits[0] > self.limits[1] else ""


WHOLE = Whole("a", (Part("x"), Part("y", 2.5)), (0.0, 1.0), {"i": 1, "s": "t"}, Path("f/g"), {"any": [1, {"z": None}]}, 0)


def test_a_record_is_read_back_from_its_json():
    document = to_json(WHOLE)
    assert list(document) == ["kind", "parts", "limits", "by_name", "place", "rest", "count", "schema_version"]
    assert from_json(Whole, json.loads(json.dumps(document))) == WHOLE


def test_only_what_is_declared_so_is_left_out():
    document = to_json(Whole("b", ()))
    assert document == {"kind": "b", "parts": [], "limits": None, "by_name": {}, "place": "x", "schema_version": 3}
    assert from_json(Whole, {"kind": "b", "parts": [], "schema_version": 3}) == Whole("b", ())


def test_each_upgrade_step_is_taken():
    assert from_json(Whole, {"kind": "old", "parts": 7, "schema_version": 1}) == Whole("b", ())
    assert from_json(Whole, {"kind": "old", "parts": [{"name": "p"}], "schema_version": 2}) == Whole("b", (Part("p"),))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"kind": "c"}, "kind"),
        ({"parts": [{"name": "p"}, {"name": 3}]}, "parts[1].name"),
        ({"parts": [{}]}, "parts[0]"),
        ({"parts": [{"name": "p", "size": 1}]}, "size"),
        ({"parts": {"name": "p"}}, "parts"),
        ({"parts": [{"name": "p", "share": math.nan}]}, "parts[0].share"),
        ({"parts": [{"name": "p", "share": True}]}, "parts[0].share"),
        ({"limits": [1.0]}, "limits"),
        ({"limits": [2.0, 1.0]}, "limits"),
        ({"by_name": {"k": 1.5}}, "by_name.k"),
        ({"count": 2**63}, "count"),
        ({"schema_version": 4}, "schema version"),
        ({"schema_version": 0}, "schema version"),
        ({"schema_version": True}, "schema version"),
        ({"schema_version": 3.0}, "schema version"),
    ],
)
def test_an_error_names_the_place(change, where):
    with pytest.raises(DataError) as caught:
        from_json(Whole, {**to_json(WHOLE), **change}, "file.json", "do it again")
    assert "file.json" in caught.value.problem
    assert where in caught.value.problem
    assert caught.value.remedy == "do it again"


@pytest.mark.parametrize("value", [None, 5, "text", [], {}])
def test_what_is_no_document_at_all_is_refused(value):
    with pytest.raises(DataError):
        from_json(Whole, value)


def test_a_file_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(to_json(WHOLE)))
    assert read_json(Whole, path, "a whole", "make one") == WHOLE
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"whole\.json"):
            read_json(Whole, path, "a whole", "make one")
    with pytest.raises(InputError, match=r"none\.json"):
        read_json(Whole, tmp_path / "none.json", "a whole", "make one")


def test_misfit_is_empty_for_what_fits():
    assert misfit([1, "dynamic"], tuple[int | str, ...]) == ""
    assert "[1]" in misfit([1, None], tuple[int | str, ...])
