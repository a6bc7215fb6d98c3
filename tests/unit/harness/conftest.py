from pathlib import Path

import pytest

from emca_deploy.harness.spec import RunnerSpec


@pytest.fixture
def make_spec(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def make(name="candidate", **kwargs):
        return RunnerSpec(name, "harness_runners:make", kwargs)

    return make
