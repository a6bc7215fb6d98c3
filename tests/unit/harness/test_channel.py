import json
import os
import struct
import threading

import numpy as np
import pytest

from emca_deploy.harness.measure.channel import Channel


@pytest.fixture
def ends():
    a_read, b_write = os.pipe()
    b_read, a_write = os.pipe()
    a, b = Channel(a_read, a_write), Channel(b_read, b_write)
    yield a, b
    a.close()
    b.close()


@pytest.mark.parametrize("array", [np.arange(7), np.zeros((0, 4), np.float32), np.arange(24.0).reshape(2, 3, 4)[:, ::2]])
def test_message_with_an_array_arrives_as_sent(ends, array):
    ends[0].send({"do": "ünïcode", "n": None}, {"one": array, "two": np.arange(3)})
    message, received = ends[1].receive(5)
    assert message == {"do": "ünïcode", "n": None}
    assert list(received) == ["one", "two"]
    assert received["one"].dtype == array.dtype
    np.testing.assert_array_equal(received["one"], array)
    np.testing.assert_array_equal(received["two"], np.arange(3))


def test_array_larger_than_the_pipe_arrives_whole(ends):
    array = np.random.default_rng(0).random(1_000_000)
    sender = threading.Thread(target=ends[0].send, args=({}, {"all": array}))
    sender.start()
    _, received = ends[1].receive(30)
    sender.join()
    np.testing.assert_array_equal(received["all"], array)


def test_half_a_message_times_out(ends):
    os.write(ends[0]._write_fd, struct.pack("<QQ", 100, 0) + b'{"half')
    with pytest.raises(TimeoutError):
        ends[1].receive(0.05)


def test_closed_other_end_is_the_end_of_file(ends):
    ends[0].close()
    ends[0].close()  # twice is fine
    with pytest.raises(EOFError):
        ends[1].receive(5)


def test_garbage_is_not_believed(ends):
    os.write(ends[0]._write_fd, b"Loading model...\n" * 4)
    with pytest.raises(EOFError):
        ends[1].receive(5)


@pytest.mark.parametrize(("length", "error"), [(1 << 26, TimeoutError), ((1 << 26) + 1, EOFError)])
def test_the_longest_message_has_64_mib(ends, length, error):
    os.write(ends[0]._write_fd, struct.pack("<QQ", length, 0))
    with pytest.raises(error):
        ends[1].receive(0.02)


@pytest.mark.parametrize("header", [b"Loading", b"[1, 2]", b'{"array": {}}', b'{"array": {"dtype": "<f4", "shape": [3]}}'])
def test_a_frame_that_holds_no_message_is_not_believed(ends, header):
    os.write(ends[0]._write_fd, struct.pack("<QQ", len(header), 4) + header + bytes(4))
    with pytest.raises(EOFError):
        ends[1].receive(5)


def test_what_json_lacks_is_sent_as_text(ends):
    ends[0].send({"path": os})
    assert "module" in json.dumps(ends[1].receive(5)[0])
