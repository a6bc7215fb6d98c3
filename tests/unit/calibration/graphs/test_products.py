"""Matrix products take one thread for a while, and then as many as before."""

import numpy as np
import pytest

from emca_deploy.calibration.graphs.products import _thread_functions, products_on_one_thread


def test_the_number_of_threads_is_restored():
    functions = _thread_functions()
    if functions is None:
        pytest.skip("numpy has another library than OpenBLAS")
    get, set_number = functions
    before = get()
    set_number(2)
    try:
        with products_on_one_thread():
            assert get() == 1
            assert np.array_equal(np.eye(300, dtype=np.float32) @ np.ones((300, 2), np.float32), np.ones((300, 2)))
        assert get() == 2
    finally:
        set_number(before)
