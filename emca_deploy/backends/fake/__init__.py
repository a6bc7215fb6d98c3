"""A backend without a model, to test what measures backends."""

from emca_deploy.backends.backend import Backend

__all__ = ["BACKEND"]

BACKEND = Backend(
    "fake",
    runner="emca_deploy.backends.fake.runner:FakeRunner",
    settings={"pace": ("steady", "quick", "slow", "broken")},
    tunables="emca_deploy.backends.fake.runner:tunables",
    hidden=True,
)
