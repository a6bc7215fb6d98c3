"""The licences in a bundle are those of what is in it."""

from zipfile import ZipFile

from emca_deploy.api.bundle import BundleRequest, bundle, inspect_bundle
from emca_deploy.bundles.notices import notices
from emca_deploy.data.bundled import bundled_test_images


def test_our_licence_is_always_there_and_the_checkpoints_where_it_is_given(artifact, tmp_path):
    (tmp_path / "own.txt").write_text("do what you like\n")
    bundle(BundleRequest((artifact(),), tmp_path / "m.emca", licence=str(tmp_path / "own.txt")))
    names = [each.name for each in inspect_bundle(tmp_path / "m.emca").files if each.name.startswith("licences/")]
    assert names == ["licences/checkpoint.txt", "licences/emca-deploy.txt"]
    assert "Apache License" in notices({}, {}, "")["licences/emca-deploy.txt"]


def test_code_and_images_of_others_bring_their_licences(tmp_path):
    with ZipFile(bundled_test_images()) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".png"))
        (tmp_path / "0.png").write_bytes(archive.read(inner))
    (tmp_path / "1.png").write_bytes(b"another image")
    assert list(notices({"golden/images/1.png": tmp_path / "1.png"}, {}, "")) == ["licences/emca-deploy.txt"]
    found = notices({"golden/images/0.png": tmp_path / "0.png"}, {"code/cpp/resample.hpp": ""}, "")
    assert "Zalando" in found["licences/fashion-mnist.txt"]
    assert "Secret Labs" in found["licences/pillow.txt"]
