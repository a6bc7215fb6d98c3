"""Entries kept between runs are complete and of the newest versions only; their keys cover the imports of their makers."""

import kept
import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMCA_DEPLOY_TESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(made):
    (made / "x").write_text("whole")


def test_it_is_made_once_and_a_copy_changes_nothing(folder):
    for name in ("a", "b"):
        kept.kept("entry", "key", write if name == "a" else pytest.fail, folder / name)
        assert (folder / name / "x").read_text() == "whole"
        (folder / name / "x").write_text("changed in place")


def test_what_fails_leaves_nothing(folder):
    def fail(made):
        write(made)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.kept("entry", "key", fail, folder / "a")
    assert [path.name for path in (folder / "cache" / "entry").iterdir()] == ["lock"]
    kept.kept("entry", "key", write, folder / "a")


def test_the_newest_versions_stay(folder):
    for number in range(kept.VERSIONS_KEPT + 2):
        kept.kept("entry", str(number), write, folder / str(number))
    stay = {path.name for path in (folder / "cache" / "entry").iterdir() if path.is_dir()}
    assert len(stay) == kept.VERSIONS_KEPT
    assert str(kept.VERSIONS_KEPT + 1) in stay


def test_the_sources_are_those_that_the_imports_lead_to():
    def fill(made):
        from emca_deploy.exporting.exporter import export_onnx  # noqa: F401

    sources = kept._sources_of(frozenset(["emca_deploy.exporting.exporter"]))
    names = {path.relative_to(kept.PACKAGE).as_posix() for path in sources}
    assert {"exporting/exporter.py", "canonical/pooling.py", "errors.py"} <= names
    assert not {name for name in names if name.startswith(("api/", "commands/", "harness/"))}
    assert kept.key_of(fill) == kept.key_of(fill)


def test_a_filler_that_imports_nothing_is_a_mistake():
    with pytest.raises(AssertionError, match="write"):
        kept.key_of(write)
