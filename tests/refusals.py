"""What a refusal must have: its class, what it is about, and a way out. How it is worded is nobody's contract."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emca_deploy.errors import EmcaError


@contextmanager
def refusing(kind: type[EmcaError], *named: object) -> Iterator["pytest.ExceptionInfo[EmcaError]"]:
    """Expect an error of exactly this class, which names everything in `named` and says what to do."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind
    missing = [str(one) for one in named if str(one) not in caught.value.problem]
    assert not missing, f"{missing} not in: {caught.value.problem}"
    assert caught.value.remedy
