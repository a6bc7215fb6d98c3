"""Arrays in our own .npz files are read as written, or a ValueError is raised."""

import io
import struct
import zipfile

import numpy as np
import pytest

from emca_deploy.npz import read_arrays


def test_arrays_come_back_as_they_were_written(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "a": random.standard_normal((3, 4)).astype(np.float32),
        "f": np.asfortranarray(random.standard_normal((3, 4))),
        "empty": np.zeros((0, 5), np.int64),
        "text": np.array(["ä", "\U0001f600"]),
        "one": np.array("key"),
        "swapped": np.arange(5, dtype=">i4"),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = read_arrays(tmp_path / "x.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def member(shape: str, data: bytes, descr: str = "<f4") -> bytes:
    header = f"{{'descr':'{descr}','fortran_order':False,'shape':{shape}}}".encode() + b"\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        member("(True,)", bytes(4)),
        member("(-1,)", bytes(4)),
        member(f"({2**60},)", bytes(4)),
        member("(2,)", bytes(4)),
        member("(1,)", bytes(8)),
        member("(1,)", b"\xff" * 4, "<U1"),
        member("(1,)", bytes(8), "|O"),
        member("(" * 400, bytes(4)),
        member("('a',)", bytes(4)),
        member("(1,)", bytes(4), "nonsense"),
    ],
)
def test_anything_else_is_one_error(content, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\S"):
        read_arrays(path)


def test_what_is_no_file_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="regular"):
        read_arrays(tmp_path)
