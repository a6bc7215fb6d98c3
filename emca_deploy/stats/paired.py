"""Compares two models on the same images: the exact test of their difference, and the images that a gate needs."""

from math import ceil, comb

from emca_deploy.stats.estimates import paired_difference_ci

__all__ = ["images_needed", "mcnemar_p", "upper_end_without_difference"]

MOST_IMAGES = 10**8


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: the chance of a split at least as uneven if both are equally good.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages" (Psychometrika 12,
    1947), with the binomial distribution in place of its normal approximation.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    if 2 * fewer == total:  # the most even split; also without any
        return 1.0
    ways = term = comb(total, fewer)
    for rank in range(fewer, 0, -1):  # integers only: exact for any number of images
        term = term * rank // (total - rank + 1)
        ways += term
    return float(min(1.0, 2 * ways / 2**total))


def upper_end_without_difference(images: int) -> float:
    """Return the upper end of the drop's interval, in points, for a model that is right exactly where its reference is."""
    return 100 * paired_difference_ci(0, 0, images)[1]


def images_needed(lost: int, won: int, images: int, max_drop: float, confidence: float = 0.95) -> int | None:
    """Return about how many similar images would bring the drop's interval within the gate of `max_drop` points.

    `lost` of the images are right with the reference only, `won` with the model only. The result is rounded to two digits; it is
    None where the drop itself is not below the gate.
    """
    if 100 * (lost - won) / images >= max_drop:
        return None

    def inside(total: int) -> bool:
        more_lost, more_won = round(lost * total / images), round(won * total / images)
        return 100 * paired_difference_ci(more_lost, more_won, total, confidence)[1] <= max_drop

    low, high = 1, images
    while not inside(high):
        low, high = high, high * 2
        if high > MOST_IMAGES:
            return None
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if inside(middle) else (middle, high)
    digits = len(str(high)) - 2
    return ceil(high / 10**digits) * 10**digits if digits > 0 else high
