"""Bundles: the same inputs make the same bytes, and no byte can change unnoticed."""

import hashlib
import json
import os
import random
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from emca_deploy.api.bundle import BundleRequest, bundle, inspect_bundle
from emca_deploy.errors import BundleError, InputError, OutputError
from emca_deploy.preprocessing import Preprocessing


@pytest.fixture
def packed(artifact, tmp_path):
    """A bundle of one artifact, as an archive."""
    bundle(BundleRequest((artifact(),), tmp_path / "m.emca", licence="Apache-2.0"))
    return tmp_path / "m.emca"


def names_of(path: Path) -> list[str]:
    return [each.name for each in inspect_bundle(path).files]


def test_same_inputs_make_the_same_bytes_in_another_place_and_later(artifact, tmp_path):
    first = bundle(BundleRequest((artifact("a/model.onnx"),), tmp_path / "a.emca"))
    later = artifact("b/model.onnx")
    os.utime(later, (1, 1))
    second = bundle(BundleRequest((later,), tmp_path / "b.emca"))
    assert (tmp_path / "a.emca").read_bytes() == (tmp_path / "b.emca").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "a.emca").read_bytes()).hexdigest()


def test_folder_and_archive_have_the_same_files_and_digest(artifact, tmp_path):
    model = artifact()
    archive = bundle(BundleRequest((model,), tmp_path / "m.emca"))
    folder = bundle(BundleRequest((model,), tmp_path / "m"))
    assert (folder.digest, folder.files) == (archive.digest, archive.files)
    with zipfile.ZipFile(tmp_path / "m.emca") as stored:
        assert stored.testzip() is None
        stored.extractall(tmp_path / "unpacked")
    assert inspect_bundle(tmp_path / "unpacked").digest == archive.digest
    assert hashlib.sha256((tmp_path / "m/SHA256SUMS").read_bytes()).hexdigest() == archive.digest
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "m", check=True, capture_output=True)


def test_onnx_runtime_opens_the_folder_and_takes_the_fastest_model_for_it(artifact, tmp_path):
    slow, fast = artifact("slow.onnx", 1.0), artifact("fast.onnx", 2.0, precision="int8", backend="onnxruntime")
    other = artifact("other.onnx", 3.0, precision="int8", backend="openvino")
    bundle(BundleRequest((other, fast, slow), tmp_path / "m"))
    onnxruntime.ModelPackage.open(str(tmp_path / "m")).close()
    context = onnxruntime.ModelPackageContext(str(tmp_path / "m"))
    chosen = context.select_component("model", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions()))
    (logits,) = chosen.create_session().run(None, {"x": np.ones((1, 4), np.float32)})
    assert logits.tolist() == [[8.0, 8.0]]


def test_external_data_travels_with_its_model(artifact, tmp_path):
    report = bundle(BundleRequest((artifact(external=True),), tmp_path / "m"))
    assert "variants/fp32-onnx/weights.bin" in [each.name for each in report.files]
    session = onnxruntime.InferenceSession(str(tmp_path / "m" / report.variants[0].file))
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[4.0, 4.0]]


def test_labels_licence_and_card(artifact, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "licence.txt").write_text("do what you like\n")
    request = BundleRequest((artifact(),), tmp_path / "m", "a_b", tmp_path / "labels.txt", str(tmp_path / "licence.txt"))
    report = bundle(request)
    assert (report.classes, report.licence, report.name) == (("cat", "dog"), "see licences/checkpoint.txt", "a_b")
    assert (tmp_path / "m/licences/checkpoint.txt").read_text() == "do what you like\n"
    assert "Accuracy and latency." in (tmp_path / "m/MODEL_CARD.md").read_text()
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    with pytest.raises(InputError, match="output 2"):
        bundle(BundleRequest((artifact(),), tmp_path / "n", labels=tmp_path / "labels.txt"))


def test_bill_of_materials_names_each_artifact_and_library(artifact, tmp_path):
    bundle(BundleRequest((artifact(),), tmp_path / "m"))
    bill = json.loads((tmp_path / "m/sbom.cdx.json").read_text())
    model, library = bill["components"]
    assert model["hashes"][0]["content"] == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert library["purl"] == "pkg:pypi/onnx-ir@1.1.0"


def test_every_flipped_byte_outside_the_weights_is_found(packed, tmp_path):
    """Every byte of the archive, one bit each: headers, names, the directory and the list of checksums included."""
    whole, damaged = packed.read_bytes(), tmp_path / "damaged.emca"
    rng, found = random.Random(0), 0
    for position in rng.sample(range(len(whole)), 150):
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        damaged.write_bytes(changed)
        with pytest.raises(BundleError):
            inspect_bundle(damaged)
        found += 1
    assert found == 150


@pytest.mark.parametrize("change", ["cut", "longer", "twice", "empty", "zeros"])
def test_other_damage_is_found(packed, change):
    whole = packed.read_bytes()
    changed = {
        "cut": whole[:-1],
        "longer": whole + b"\0",
        "twice": whole + whole,
        "empty": b"",
        "zeros": whole[:100] + bytes(64) + whole[164:],
    }
    packed.write_bytes(changed[change])
    with pytest.raises(BundleError):
        inspect_bundle(packed)


def test_zip_of_another_program_is_refused(packed, tmp_path):
    """The same files with the time of today: no byte of them differs, but the archive is another one."""
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(tmp_path / "other.emca", "w") as other:
        for name in whole.namelist():
            other.writestr(name, whole.read(name))
    with pytest.raises(BundleError, match="header"):
        inspect_bundle(tmp_path / "other.emca")


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a\\b", ".hidden", "a//b", "a/../b", "é"])
def test_names_that_leave_the_folder_are_refused(packed, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "other.emca", "w") as other:
        other.writestr(name, b"x")
    with pytest.raises(BundleError):
        inspect_bundle(tmp_path / "other.emca")


@pytest.mark.parametrize("change", ["flip", "more", "less", "link", "sums"])
def test_changed_folders_are_refused(artifact, tmp_path, change):
    place = tmp_path / "m"
    bundle(BundleRequest((artifact(),), place))
    card = place / "MODEL_CARD.md"
    if change == "flip":
        card.write_bytes(card.read_bytes().replace(b"a", b"b", 1))
    elif change == "more":
        (place / "more.txt").write_text("x")
    elif change == "less":
        card.unlink()
    elif change == "link":
        text = card.read_bytes()
        card.unlink()
        (tmp_path / "card").write_bytes(text)
        card.symlink_to(tmp_path / "card")
    else:
        sums = place / "SHA256SUMS"
        sums.write_text(sums.read_text().upper())
    with pytest.raises(BundleError):
        inspect_bundle(place)


def test_artifacts_of_different_inputs_are_refused(artifact, tmp_path):
    one, other = artifact("one.onnx"), artifact("other.onnx", 2.0, preprocessing=Preprocessing(image_size=3))
    with pytest.raises(BundleError, match="preprocessing"):
        bundle(BundleRequest((one, other), tmp_path / "m.emca"))
    with pytest.raises(BundleError, match="classes"):
        bundle(BundleRequest((one, artifact("more.onnx", 3.0, num_classes=3)), tmp_path / "m.emca"))
    assert not (tmp_path / "m.emca").exists()


def test_file_without_manifest_is_refused(artifact, tmp_path):
    model = artifact()
    (tmp_path / "model.onnx.manifest.json").unlink()
    with pytest.raises(BundleError, match="manifest"):
        bundle(BundleRequest((model,), tmp_path / "m.emca"))


def test_existing_folder_is_kept_and_archive_is_replaced(artifact, packed, tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(OutputError):
        bundle(BundleRequest((artifact(),), tmp_path / "m"))
    assert list((tmp_path / "m").iterdir()) == []
    bundle(BundleRequest((artifact("x.onnx", 5.0),), packed))
    assert any("x.onnx" in name for name in names_of(packed))


def test_same_file_twice_is_bundled_once(artifact, tmp_path):
    report = bundle(BundleRequest((artifact(), artifact()), tmp_path / "m.emca"))
    assert len(report.variants) == 1
