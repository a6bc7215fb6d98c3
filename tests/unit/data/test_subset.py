"""The choice of a subset: the same on every machine, without repetition, balanced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.data.sources import choose_indices
from emca_deploy.errors import InputError


def test_the_choice_is_the_one_it_has_always_been():
    assert choose_indices(1000, 5) == [298, 553, 672, 859, 993]
    assert choose_indices(1000, 5, seed=1) == [242, 368, 452, 507, 818]
    assert choose_indices(1000, 5, np.arange(1000) % 5) == [55, 672, 859, 971, 993]


@given(st.integers(1, 200), st.integers(1, 300), st.integers(0, 5), st.integers(1, 12), st.booleans())
def test_choices_are_sorted_distinct_and_of_the_size_asked_for(count, samples, seed, classes, labelled):
    labels = np.random.default_rng(seed).integers(0, classes, count) * 7 if labelled else None
    got = choose_indices(count, samples, labels, seed)
    assert got == sorted(set(got))
    assert len(got) == min(count, samples)
    assert all(type(index) is int and 0 <= index < count for index in got)
    assert got == choose_indices(count, samples, labels, seed)
    if labels is not None:
        chosen = np.bincount(labels[got], minlength=classes * 7)
        there = np.bincount(labels, minlength=classes * 7)
        not_exhausted = chosen[chosen < there]
        if len(not_exhausted):  # all classes with enough images got the same number, give or take one
            assert chosen.max() - not_exhausted.min() <= 1


def test_classes_with_too_few_images_give_all_and_others_make_up_for_it():
    labels = np.array([0] * 2 + [1] * 50 + [2] * 50)
    assert np.bincount(labels[choose_indices(102, 30, labels)]).tolist() == [2, 14, 14]


def test_which_class_gets_one_more_is_left_to_the_seed():
    labels = np.arange(100) % 10
    favoured = {int(labels[choose_indices(100, 1, labels, seed)[0]]) for seed in range(40)}
    assert len(favoured) > 4


def test_another_seed_makes_another_choice():
    assert len({tuple(choose_indices(1000, 10, seed=seed)) for seed in range(20)}) == 20


def test_every_image_has_the_same_chance():
    times = np.zeros(20)
    for seed in range(1000):
        times[choose_indices(20, 5, np.arange(20) % 2, seed)] += 1
    assert abs(times - 250).max() < 75  # more than five standard deviations


def test_nonsense_is_refused():
    for samples in (0, -3):
        with refusing(InputError, samples):
            choose_indices(10, samples)
    with pytest.raises(ValueError, match="labels of shape"):
        choose_indices(10, 5, np.zeros(9, np.int64))
