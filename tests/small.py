"""Registers every family at depth 10 too: one block per stage, a quarter of the width; for tests that do not depend on depth.

`python tests/small.py COMMAND ...` runs the command line with these networks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def small_networks() -> Iterator[None]:
    """Register the small networks as well."""
    import emca_deploy.networks.pkcam
    from emca_deploy.networks import registry, resnet

    if 10 in resnet.STAGE_BLOCKS:  # already inside another one
        yield
        return
    quarter = tuple(width // 4 for width in resnet.STAGE_WIDTHS)
    small = {f"{family}10": registry.Architecture(f"{family}10", family, 10, None) for family in registry.FAMILY_OPTIONS}
    with (
        patch.object(resnet, "STAGE_WIDTHS", quarter),
        patch.object(emca_deploy.networks.pkcam, "STAGE_WIDTHS", quarter),
        patch.dict(resnet.STAGE_BLOCKS, {10: (1, 1, 1, 1)}),
        patch.dict(registry.ARCHITECTURES, small),
    ):
        yield


if __name__ == "__main__":
    from emca_deploy.__main__ import main

    with small_networks():
        main()
