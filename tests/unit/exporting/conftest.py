"""Every family, exported once."""

import pytest

FAMILIES = [f"{family}resnet18" for family in ("", "se_", "eca_", "srm_", "emca_se_", "emca_eca_", "emca_srm_", "pkcam_eca_")]


@pytest.fixture(scope="session", params=FAMILIES)
def exported(request, exported, lively_network):
    """The name, the torch module with batch norms that do something, and the exported file of one family."""
    return request.param, lively_network(request.param), exported(request.param)
