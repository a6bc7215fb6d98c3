"""Lending of workers, ranges of images, and addresses, without a cluster."""

import threading
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from emca_deploy.data.sources import open_source
from emca_deploy.errors import InputError
from emca_deploy.fleet import fleet as module
from emca_deploy.fleet import shards
from emca_deploy.fleet.cluster import ClusterOptions
from emca_deploy.fleet.errors import ClusterLostError
from emca_deploy.fleet.fleet import Fleet
from emca_deploy.fleet.workers import FleetWorker
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.sweep import SweepCell, SweepRow, with_front
from emca_deploy.targets.shipment import Shipment

ONE = FleetWorker("tcp://1", "a", "host", "m1", "cpu", "f", "n", {"fake": "1"}, {"latency": 1.0})
WORKERS = (ONE, replace(ONE, address="tcp://2", name="b"), replace(ONE, address="tcp://3", name="c", machine="m2"))


@pytest.fixture
def fleet():
    found = Fleet(SimpleNamespace(status="running"))
    found.workers = {worker.address: worker for worker in WORKERS}
    return found


def test_of_each_machine_the_first_worker_by_name_measures(fleet):
    assert [worker.name for worker in fleet.latency_workers] == ["a", "c"]


def test_a_machine_measures_alone(fleet):
    """Neither accuracy nor work of this process runs where latency is measured, and nobody waits for ever."""
    fleet._own = "m1"
    lock, using, alone, wrong = threading.Lock(), Counter(), Counter(), []

    def work(number):
        exclusive = number % 3 == 0
        with fleet.lent(lambda worker: True, Shipment(), alone=exclusive) as worker:
            with lock:
                using[worker.machine] += 1
                alone[worker.machine] += exclusive
                if alone[worker.machine] and using[worker.machine] > 1:
                    wrong.append(number)
            threading.Event().wait(0.001)
            with lock:
                using[worker.machine] -= 1
                alone[worker.machine] -= exclusive

    def here(number):
        with fleet.here():
            with lock:
                wrong.extend([number] * alone["m1"])
                using["m1"] += 1
            threading.Event().wait(0.001)
            with lock:
                using["m1"] -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: (here if number % 4 == 1 else work)(number), range(200)))
    assert wrong == []
    assert not +using


def test_files_are_sent_ahead_once_and_never_to_a_machine_that_measures(fleet, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    files, sent, may_go_on = Shipment(), [], threading.Event()
    files.add_as("file", tmp_path / "file")

    def put(worker, *_):
        may_go_on.wait(10)
        sent.append(worker.name)

    monkeypatch.setattr(fleet, "_put", put)
    with fleet.lent(lambda worker: worker.machine == "m2", files, alone=True):
        fleet.send_ahead(lambda worker: True, files)
        assert fleet._users["m1"] == 2  # no latency is measured there meanwhile
        may_go_on.set()
        for worker in WORKERS[:2]:
            fleet._send(worker, files)  # waits for the other thread, and finds the file there
    assert sorted(sent) == ["a", "b"]


def test_a_fleet_without_a_worker_that_fits_is_lost(fleet, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    with pytest.raises(ClusterLostError), fleet.lent(lambda worker: False, Shipment(), alone=True):
        pass


@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_shards_are_the_images_in_order(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FEWEST_IMAGES", 1)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    data = tmp_path / f"data.{kind}"
    if kind == "npz":
        np.savez(data, images=pixels, labels=np.arange(70) % 12)
    else:
        for index, image in enumerate(pixels):
            place = tmp_path / "data.folder" / str(index % 12) / f"{index}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as archive:
            for path in (tmp_path / "data.folder").rglob("*.png"):
                archive.write(path, path.relative_to(tmp_path / "data.folder"))
    used = Preprocessing(8, 8)
    whole = open_source(data, used)
    (tmp_path / "cut").mkdir()
    found = shards.cut(whole, data, None, 4, 3, tmp_path / "cut")
    assert [shard.count for shard in found.shards] == [32, 32, 6]
    parts = [open_source(shard.path, used, images=shard.images) for shard in found.shards]
    images = [part.load(index) for part in parts for index in range(len(part))]
    np.testing.assert_array_equal(images, [whole.load(index) for index in range(len(whole))])
    np.testing.assert_array_equal(found.labels, whole.labels)


@pytest.mark.parametrize(
    "options",
    [
        ClusterOptions(),
        ClusterOptions("tcp://127.0.0.1:1", 2),
        ClusterOptions("http://127.0.0.1:1"),
        ClusterOptions("tcp://127.0.0.1"),
        ClusterOptions("tcp://:1"),
        ClusterOptions("tcp://[::1:1"),
        ClusterOptions("tcp://build-server:8786"),
        ClusterOptions("tcp://10.0.0.1:8786"),
    ],
)
def test_a_wrong_or_open_address_is_refused(options):
    with pytest.raises(InputError):
        options.check()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1", "tls://build-server:8786"])
def test_loopback_and_tls_are_accepted(address):
    ClusterOptions(address).check()
    ClusterOptions("tcp://build-server:8786", insecure=True).check()


def test_no_front_mixes_machines():
    cell = SweepCell("net.onnx", None, "fp32", "fake", "cpu", "single-stream", 1, 1)
    rows = [SweepRow(name, name, cell, "done", p50_ms=ms, machine=on) for name, ms, on in (("x", 1.0, None), ("y", 2.0, "board"))]
    assert [row.pareto for row in with_front(tuple(rows))] == [True, True]
