"""Parallel work gives the results of sequential work, in order, with a short queue."""

import threading

import pytest

from emca_deploy.calibration.graphs.graph_session import in_order, pool_size


def test_results_come_in_the_order_of_the_items_whichever_is_done_first():
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(10)
        elif item == 1:
            second_done.set()
        return item * item

    assert list(in_order(work, range(20), 2)) == [n * n for n in range(20)]


def test_items_are_taken_no_sooner_than_there_is_room():
    taken = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    results = in_order(lambda n: n, items(), 3)
    assert next(results) == 0
    assert len(taken) <= 6


def test_an_error_comes_in_its_items_turn():
    def work(item):
        if item == 2:
            raise ValueError("two")
        return item

    results = in_order(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


@pytest.mark.parametrize(("threads", "expected"), [(1, (1, 1)), (2, (2, 1)), (4, (4, 1)), (12, (4, 3))])
def test_threads_are_shared_among_the_workers(threads, expected):
    assert pool_size(threads) == expected
