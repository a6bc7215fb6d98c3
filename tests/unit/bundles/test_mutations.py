"""Damaged and forged bundles: they are refused with an error, and nothing of them is loaded."""

import hashlib
import json
import os
import random
import zipfile
from collections import Counter
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest

from emca_deploy.api import load_bundle as loading
from emca_deploy.api.bundle import BundleRequest, bundle
from emca_deploy.bundles.canonical_zip import read_archive, write_archive
from emca_deploy.bundles.opened import SUMS, checksums, open_bundle
from emca_deploy.errors import BundleError, EmcaError

KINDS = ("flip", "header", "directory", "cut", "insert", "zero", "move", "reorder", "extra", "twice", "manifest")
VALUES = (None, 0, -1, 2**70, 1e400, "", "a/../../b", [], {}, True, "\0", "variants/x")


@pytest.fixture
def packed(artifact, tmp_path):
    """A bundle of two artifacts, as an archive."""
    models = (artifact(), artifact("other.onnx", 2.0, precision="int8", backend="openvino"))
    bundle(BundleRequest(models, tmp_path / "m.emca", licence="Apache-2.0"))
    return tmp_path / "m.emca"


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Return a function that fails unless a bundle is refused before anything is loaded."""

    def loaded(*_):
        pytest.fail("a damaged bundle was loaded")

    monkeypatch.setattr(loading, "_open", loaded)

    def check(content: bytes) -> None:
        place = tmp_path / "damaged.emca"
        place.write_bytes(content)
        with pytest.raises(BundleError):
            loading.load_bundle(place)

    return check


def headers_of(whole: bytes) -> list[int]:
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        return [each.header_offset for each in archive.infolist()]


def directory_of(whole: bytes) -> int:
    return whole.index(b"PK\x01\x02")


def flipped(whole: bytes, position: int, rng: random.Random) -> bytes:
    changed = bytearray(whole)
    changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def rezipped(whole: bytes, rng: random.Random, kind: str) -> bytes:
    """Return the archive with its entries in another order, one more, or one twice, as canonical as they can be."""
    out, offsets = BytesIO(), [*headers_of(whole), directory_of(whole)]
    parts = [whole[start:end] for start, end in pairwise(offsets)]
    if kind == "reorder":
        rng.shuffle(parts)
    elif kind == "twice":
        parts.insert(rng.randrange(len(parts)), rng.choice(parts))
    else:
        with zipfile.ZipFile(BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                new.writestr(info, old.read(info))
            new.writestr(rng.choice(["zz.txt", "../x", "/x", "a\\b", "variants/x/y", "é"]), b"x")
        return out.getvalue()
    return b"".join(parts) + whole[directory_of(whole) :]


def mutated(whole: bytes, kind: str, rng: random.Random) -> bytes:
    position, length = rng.randrange(len(whole)), rng.randrange(1, 50)
    if kind == "flip":
        return flipped(whole, position, rng)
    if kind == "header":
        return flipped(whole, rng.choice(headers_of(whole)) + rng.randrange(30), rng)
    if kind == "directory":
        return flipped(whole, rng.randrange(directory_of(whole), len(whole)), rng)
    if kind == "manifest":
        start = whole.index(b'{\n "schema_version"')
        return flipped(whole, start + rng.randrange(400), rng)
    if kind == "cut":
        return whole[:position]
    if kind == "insert":
        return whole[:position] + bytes([rng.randrange(256)]) * length + whole[position:]
    if kind == "zero":
        return whole[:position] + b"\xa5" * length + whole[position + length :]
    if kind == "move":
        return whole[:position] + whole[position + length :] + whole[position : position + length]
    return rezipped(whole, rng, kind)


@pytest.mark.parametrize("count", [66, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutations_neither_load_nor_crash(packed, refused, count):
    whole, rng, done = packed.read_bytes(), random.Random(count), Counter()
    while sum(done.values()) < count:
        kind = KINDS[sum(done.values()) % len(KINDS)]
        content = mutated(whole, kind, rng)
        if content != whole:
            refused(content)
            done[kind] += 1
    assert min(done.values()) >= count // len(KINDS)


def places(value, path=()):
    """Yield the path of every value in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def forged(folder: Path, files: dict[str, bytes], output: Path) -> None:
    """Write these files as a bundle with checksums of its own."""
    sums = checksums({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    paths = {}
    for number, (name, content) in enumerate({**files, SUMS: sums}.items()):
        paths[name] = folder / str(number)
        paths[name].write_bytes(content)
    with output.open("wb") as stream:
        write_archive(stream, paths)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_forged_manifests_do_not_crash_and_have_another_digest(packed, tmp_path, count):
    """Whoever changes a file can make the checksums fit: it is another digest then, and no other error than ours."""
    before, rng, folder = open_bundle(packed).digest, random.Random(0), tmp_path / "forged"
    folder.mkdir()
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != SUMS}
    manifest = json.loads(files["manifest.json"])
    for _ in range(count):
        changed = json.loads(files["manifest.json"])
        *way, last = rng.choice(list(places(manifest)))
        inner = changed
        for key in way:
            inner = inner[key]
        inner[last] = rng.choice(VALUES)
        forged(folder, {**files, "manifest.json": json.dumps(changed, indent=1).encode()}, tmp_path / "forged.emca")
        try:
            opened = open_bundle(tmp_path / "forged.emca")
            opened.report()
        except EmcaError:
            continue
        assert opened.digest != before


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", ".", ""])
def test_forged_names_of_variants_leave_no_folder(packed, tmp_path, name):
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != SUMS}
    changed = json.loads(files["manifest.json"])
    variants = changed["components"]["model"]["variants"]
    variants[name] = variants.pop(next(iter(variants)))
    (tmp_path / "forged").mkdir()
    forged(tmp_path / "forged", {**files, "manifest.json": json.dumps(changed).encode()}, tmp_path / "forged.emca")
    with pytest.raises(BundleError):
        loading.load_bundle(tmp_path / "forged.emca")


def test_what_is_loaded_is_what_was_compared(packed, tmp_path):
    """A file that changes after the comparison, in place and with the same size and time, is refused when it is copied."""
    opened, whole = open_bundle(packed), packed.read_bytes()
    status = packed.stat()
    packed.write_bytes(whole.replace(b"CycloneDX", b"cyclonedx").replace(b"onnx_ir", b"onnx_IR"))
    os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BundleError):
        opened.text("sbom.cdx.json")
    variant = opened.report().variants[0]
    with pytest.raises(BundleError):
        opened.copy(str(Path(variant.file).parent), tmp_path / "copies")


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_writing_and_reading_an_archive_read_each_byte_once(tmp_path):
    size, large, packed = 4 << 20, tmp_path / "large", tmp_path / "m.emca"
    large.write_bytes(bytes(size))
    start = bytes_read()
    with packed.open("wb") as stream:
        write_archive(stream, {"model.bin": large})
    written = bytes_read()
    archive = read_archive(packed)
    assert (written - start) / size < 1.2
    assert (bytes_read() - written) / size < 1.2
    assert archive.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
