"""Malicious and damaged zip files."""

import io
import stat
import struct
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data import archives
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError

PLAIN = Preprocessing(4, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def png(value=0, size=4):
    stream = io.BytesIO()
    Image.new("L", (size, size), value).save(stream, "PNG")
    return stream.getvalue()


def zip_bytes(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def opened(tmp_path, content):
    path = tmp_path / "data.zip"
    path.write_bytes(content)
    return open_source(path, PLAIN)


def refusal(tmp_path, content):
    with pytest.raises(DataError) as caught:
        opened(tmp_path, content)
    assert str(tmp_path / "data.zip") in caught.value.problem
    assert caught.value.problem.isprintable()
    return caught.value.problem


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd.png", "absolute"),
        ("C:/x.png", "absolute"),
        ("c:x.png", "absolute"),
        ("../x.png", r"'\.\.'"),
        ("a/../../x.png", r"'\.\.'"),
        ("a/..", r"'\.\.'"),
        ("a\\x.png", "backslash"),
        ("..\\x.png", "backslash"),
        ("../notes.txt", r"'\.\.'"),
        ("__MACOSX/../x.png", r"'\.\.'"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name, why):
    content = zip_bytes([("ok.png", png()), (name, png())])
    problem = refusal(tmp_path, content)
    assert f"'{name}'" in problem
    assert list(tmp_path.iterdir()) == [tmp_path / "data.zip"]
    with pytest.raises(DataError, match=why):
        opened(tmp_path, content)


def test_a_name_with_a_nul_is_refused(tmp_path):
    content = zip_bytes([("ab/c.png", png())]).replace(b"ab/c.png", b"ab/\0.png")
    assert "no proper name" in refusal(tmp_path, content)


def test_names_with_dots_that_lead_nowhere_else_are_fine(tmp_path):
    source = opened(tmp_path, zip_bytes([("a..b/x..png", png()), ("c/y...png", png())]))
    assert source.classes == ("a..b", "c")


@pytest.mark.parametrize(("kind", "why"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "special"), (stat.S_IFCHR, "special")])
def test_links_and_special_files_are_refused(tmp_path, kind, why):
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = (kind | 0o777) << 16
    problem = refusal(tmp_path, zip_bytes([("a/x.png", png()), (info, b"/etc/passwd")]))
    assert "'a/link.png'" in problem
    assert why in problem


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zip_bytes([("a.png", png(1)), ("a.png", png(2))])
    assert "'a.png' is there twice" in refusal(tmp_path, content)


def test_encrypted_members_are_refused(tmp_path):
    content = bytearray(zip_bytes([("a.png", png())]))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    assert "'a.png' is encrypted" in refusal(tmp_path, bytes(content))


def test_bombs_are_refused_by_ratio(tmp_path):
    content = zip_bytes([("a.png", png()), ("bomb.png", b"\0" * (20 << 20))], zipfile.ZIP_DEFLATED)
    assert len(content) < 30_000
    assert "'bomb.png' is compressed over 1000 times" in refusal(tmp_path, content)


def test_what_compresses_well_but_not_absurdly_is_read(tmp_path):
    source = opened(tmp_path, zip_bytes([("a.bmp", _bmp(300))], zipfile.ZIP_DEFLATED))
    assert source.load(0).shape == (3, 4, 4)


def _bmp(size):
    stream = io.BytesIO()
    Image.new("L", (size, size)).save(stream, "BMP")
    return stream.getvalue()


def with_declared_size(size):
    """A small zip whose table of contents declares `size` bytes for its one member."""
    content = bytearray(zip_bytes([("a.png", b"\0" * 500)]))
    place = content.index(b"PK\1\2")
    struct.pack_into("<II", content, place + 20, size // 2, size)
    return bytes(content)


def test_large_members_are_refused_before_they_are_unpacked(tmp_path):
    assert "larger than 64 MiB" in refusal(tmp_path, with_declared_size((64 << 20) + 1))


def test_the_sum_of_all_members_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 1 << 20)
    content = zip_bytes([(f"{n}.png", b"\0" * (1 << 18)) for n in range(5)])
    assert "when unpacked" in refusal(tmp_path, content)
    assert archives.MAX_MEMBER_BYTES == 64 << 20


def test_a_member_that_is_larger_than_it_declares_yields_no_more_than_declared(tmp_path):
    content = bytearray(zip_bytes([("a.png", b"\0" * 1_000_000)], zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 5000)
    source = opened(tmp_path, bytes(content))
    with refusing(DataError, "'a.png'"):
        source.load(0)


def test_an_unknown_compression_is_named(tmp_path):
    content = bytearray(zip_bytes([("a.png", png())]))
    for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", content, content.index(signature) + offset, 97)
    with refusing(DataError, "'a.png'"):
        opened(tmp_path, bytes(content)).load(0)


def test_a_damaged_member_is_named(tmp_path):
    content = bytearray(zip_bytes([("a.png", png()), ("b.png", png(255))]))
    place = content.rindex(b"IDAT", 0, content.index(b"PK\1\2"))
    content[place + 6] ^= 0xFF
    source = opened(tmp_path, bytes(content))
    source.load(0)
    with pytest.raises(DataError, match=r"'b\.png'.*CRC"):
        source.load(1)


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_truncated_zips_are_refused(tmp_path, keep):
    content = zip_bytes([(f"{n}.png", png(n)) for n in range(20)])
    length = keep if keep in (0, 1) else int(len(content) * keep)
    assert "not a zip file, or truncated" in refusal(tmp_path, content[:length])


def test_an_empty_zip_has_no_images(tmp_path):
    assert "has no images" in refusal(tmp_path, zip_bytes([]))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_of_the_standard_library_is_read(tmp_path, compression):
    source = opened(tmp_path, zip_bytes([("a.png", png(255))], compression))
    np.testing.assert_array_equal(source.load(0), np.ones((3, 4, 4), np.float32))


def test_many_threads_read_the_right_members(tmp_path):
    source = opened(tmp_path, zip_bytes([(f"{n:03d}.png", png(n)) for n in range(200)], zipfile.ZIP_DEFLATED))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(source.load, [n % 200 for n in range(1000)]))
    finally:
        sys.setswitchinterval(interval)
    assert [round(float(image[0, 0, 0]) * 255) for image in got] == [n % 200 for n in range(1000)]
