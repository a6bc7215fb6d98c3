import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emca_deploy.data.rle import compress, counts_of_crop, decompress

masks = pytest.importorskip("pycocotools.mask")


@given(arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9))), st.integers(0, 4), st.integers(0, 4), st.data())
def test_a_crop_equals_pycocotools(crop, top, left, data):
    size = (top + crop.shape[0] + data.draw(st.integers(0, 3)), left + crop.shape[1] + data.draw(st.integers(0, 3)))
    size = (max(size[0], 1), max(size[1], 1))
    whole = np.zeros(size, np.uint8, order="F")
    whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    text = masks.encode(whole)["counts"]
    counts = counts_of_crop(crop, top, left, size)
    assert compress(counts) == text
    assert decompress(text).tolist() == counts.tolist()
    assert counts.sum() == size[0] * size[1]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20))
def test_any_counts_return(counts):
    values = np.array(counts, np.int64)
    assert decompress(compress(values)).tolist() == counts


@given(st.binary(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        counts = decompress(text)
    except ValueError:
        return
    assert counts.min(initial=0) >= 0
