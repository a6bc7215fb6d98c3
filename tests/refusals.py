"""Check a refusal: its class, the names it mentions, and a remedy; the wording is free."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emca_deploy.errors import EmcaError


@contextmanager
def refusing(kind: type[EmcaError], *named: object) -> Iterator["pytest.ExceptionInfo[EmcaError]"]:
    """Expect an error of exactly this class that contains every name in `named` and a remedy."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind
    missing = [str(one) for one in named if str(one) not in caught.value.problem]
    assert not missing, f"{missing} not in: {caught.value.problem}"
    assert caught.value.remedy
