"""Damaged and malicious checkpoint files raise only CheckpointError and use less than a second and little memory."""

import argparse
import io
import json
import pickle
import pickletools
import random
import resource
import time
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.checkpoint_files.opening import open_checkpoint
from emca_deploy.checkpoint_files.stored import TensorProblem
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.fitting import fit_network
from emca_deploy.networks.networks import find_networks

FEW = 200
MANY = 4_000
LOADED_ELEMENTS = 10_000
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PIECES = [
    *OPCODES,
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x00" * 8,
    b"q\x00",
    b"h\x00",
    b"\x8a\xff",
    b"cos\nsystem\n",
    b"(lp0\n",
    b"2" * 50,
]


def value():
    import torch

    shared = torch.arange(40.0)
    return {
        "state_dict": OrderedDict(
            {"module.layer1.0.conv1.weight": shared.reshape(4, 10), "module.fc.weight": shared[8:20].reshape(3, 4).t()}
        ),
        "best": np.float64(3.5),
        "args": argparse.Namespace(lr=0.1, sizes=(1, 2), name="x"),
        "more": defaultdict(dict, {"a": [1, None, True, 1 << 70, b"bytes"]}),
        "half": torch.ones(3, dtype=torch.float16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def seeds(folder):
    """Small files of every supported kind."""

    import torch
    from safetensors.torch import save_file

    made = []
    for zipped in (True, False):
        torch.save(value(), folder / "seed", _use_new_zipfile_serialization=zipped)
        made.append((folder / "seed").read_bytes())
    save_file({"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}, folder / "seed")
    made.append((folder / "seed").read_bytes())
    made.append(json.dumps({"weight_map": {"a.weight": "seed", "b": "seed"}, "metadata": {"total_size": 64}}).encode())
    return made


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(content) + 1)
        match rng.randrange(6):
            case 0:
                content[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del content[place : place + rng.choice((1, 2, 8, 100))]
            case 2:
                content[place:place] = rng.choice(PIECES)
            case 3:
                start = rng.randrange(len(content) + 1)
                content[place:place] = content[start : start + rng.choice((1, 4, 30))]
            case 4:
                content[place : place + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00"))
            case 5:
                content[place : place + 1] = rng.choice(OPCODES)
    return bytes(content)


def with_mutated_pickle(content, rng):
    """Return a zip file of torch.save with another data.pkl and valid checksums, which lets the reader reach the pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", rng.choice((0, 8))) as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(member.filename, mutated(data, rng) if member.filename.endswith("data.pkl") else data)
    return packed.getvalue()


def try_to_read(path):
    """Read a file like the loader; return whether it was accepted."""
    try:
        with open_checkpoint(path) as file:
            for tensor in file.tensors.values():
                tensor.outline()
                if int(np.prod([float(size) for size in tensor.shape])) <= LOADED_ELEMENTS:
                    tensor.load()
            for network in find_networks(file):
                fit_network(file, network, arch=None, position="residual", trusted=False)
    except (CheckpointError, TensorProblem):
        return False
    return True


def timed(path):
    start = time.process_time()
    taken = try_to_read(path)
    return time.process_time() - start, taken


def fuzz(folder, count, seed):
    import torch
    from safetensors.torch import save_file

    rng = random.Random(seed)
    originals = seeds(folder)
    save_file({"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}, folder / "seed")
    path = folder / "fuzzed"
    path.write_bytes(originals[0])
    try_to_read(path)  # torch's imports at first use do not count as the file's cost
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest, taken = 0.0, 0
    for number in range(count):
        content = with_mutated_pickle(originals[0], rng) if number % 3 == 0 else mutated(rng.choice(originals), rng)
        path.write_bytes(content)
        try:
            seconds, read = timed(path)
        except BaseException:
            (folder / "found").write_bytes(content)
            raise
        taken += read
        if seconds > slowest:  # on a busy machine even processor time is noisy
            slowest = max(slowest, min(seconds, timed(path)[0]))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 0 < taken < count  # both occur, otherwise the test tested nothing
    assert slowest < 1
    assert grown_kib < 200 << 10


def test_damaged_files(tmp_path):
    fuzz(tmp_path, FEW, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_many_damaged_files(tmp_path, seed):
    fuzz(tmp_path, MANY, seed)


# Cases that random changes do not find.


def zipped(folder, data, compression=zipfile.ZIP_STORED, **members):
    path = folder / "hostile.pth"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"archive/data/{name.removeprefix('n')}", content)
    return path


def laughs():
    return b"".join(b"]q%c(h%ch%ch%ch%ch%ce" % (i + 1, *([i] * 5)) for i in range(100))


def colliding_keys():
    return b"".join(b"\x8a\x0a" + (k * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for k in range(1, 60_000))


def many_items():
    return b"(" + b"".join(b"U\x04%04dN" % i for i in range(9999)) + b"u"


LONG = b"X\x00\x00\x0f\x00" + b"m" * 0xF0000  # a text of nearly a megabyte, memoized and reused many times
BOMBS = {
    "huge text": b"X\xff\xff\xff\xff" + b"a" * 9,
    "huge bytes": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "huge number": b"\x8b\xff\xff\xff\x7f1",
    "huge memo": b"}r\xff\xff\xff\xff.",
    "huge frame": b"\x95" + b"\xff" * 8 + b"}.",
    "deep lists": b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples": b")" + b"\x85" * 300_000 + b".",
    "deep marks": b"(" * 300_000 + b".",
    "laughs": b"]q\x00" + laughs() + b".",
    "copied arguments": b"(" + b"N" * 100_000 + b"tq\x00cm\nC\nq\x01" + b"h\x01h\x00R" * 100_000 + b".",
    "copied state": b"}" + many_items() + b"q\x00cm\nC\n)Rq\x01" + b"h\x00b" * 200_000 + b".",
    "long names": LONG + b"q\x00" + b"h\x00h\x00\x930" * 100_000 + b"}.",
    "long text encoded": LONG + b"q\x00c_codecs\nencode\nq\x01" + b"h\x01(h\x00tR0" * 100_000 + b"}.",
    "nothing but nothing": b"N0" * 1_000_000 + b"}.",
    "colliding keys": b"}(" + colliding_keys() + b"u.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_hostile_pickle_costs_little(tmp_path, kind):
    path = zipped(tmp_path, b"\x80\x02" + BOMBS[kind])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert not try_to_read(path)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_a_small_archive_that_unpacks_to_much_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as stream:
        for _ in range(30):
            stream.write(b"N0" * (1 << 19))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refusing(CheckpointError, path), open_checkpoint(path):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def tensor_pickle(offset=0, shape=(2, 2), stride=(2, 1), elements=4, key="0", kind="FloatStorage"):
    """The pickle of {"a": tensor} in torch.save's form, with arbitrary numbers."""

    import torch

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", getattr(torch, kind), key, "cpu", elements) if isinstance(obj, Storage) else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, stride, False, OrderedDict())

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"a": Tensor()})
    return buffer.getvalue()


def test_the_crafted_tensor_is_a_real_one(tmp_path):
    path = zipped(tmp_path, tensor_pickle(), n0=np.arange(4, dtype=np.float32).tobytes())
    with open_checkpoint(path) as file:
        assert file.tensors["a"].load().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "numbers",
    [
        {"shape": (2, 3), "stride": (3, 1)},
        {"offset": 1},
        {"stride": (100, 1)},
        {"stride": (1 << 40, 1)},
        {"offset": 1 << 47},
        {"kind": "DoubleStorage"},
        {"key": "1"},
        {"key": "../0"},
    ],
)
def test_a_view_beyond_its_storage_has_no_values(tmp_path, numbers):
    path = zipped(tmp_path, tensor_pickle(**numbers), n0=bytes(16))
    with open_checkpoint(path) as file, pytest.raises(TensorProblem):
        file.tensors["a"].load()


@pytest.mark.parametrize(
    "numbers",
    [
        {"shape": (-1, 2)},
        {"offset": -4},
        {"stride": (-2, 1)},
        {"shape": (1 << 80,), "stride": (1,)},
        {"shape": "ab"},
        {"stride": (1,)},
    ],
)
def test_sizes_that_none_has_are_damage(tmp_path, numbers):
    path = zipped(tmp_path, tensor_pickle(**numbers), n0=bytes(16))
    with pytest.raises(CheckpointError), open_checkpoint(path):
        pass
