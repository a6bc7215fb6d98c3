"""Every family, exported once."""

import pytest

FAMILIES = [f"{family}resnet18" for family in ("", "se_", "eca_", "srm_", "emca_se_", "emca_eca_", "emca_srm_", "pkcam_eca_")]
NARROW = [f"narrow_{name}" for name in FAMILIES[1:]]
WIDE = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
REWRITTEN = [name.replace("18", "10") for name in FAMILIES if not name.startswith("emca")]
REWRITTEN += ["narrow_emca_eca_resnet18", "narrow_emca_srm_resnet18", *WIDE]
"""With one block a stage, EMCA has no sum over scales."""


@pytest.fixture(scope="session")
def export(exported, lively_network):
    """Return a function that gives the name, the torch module with lively batch norms, and the exported file of a network."""
    return lambda name: (name, lively_network(name), exported(name))


@pytest.fixture(scope="session", params=["resnet18", *NARROW, *WIDE[1:]])
def exported_family(request, export):
    """Every family as it is exported, of a quarter of the width except for one, and in full at night."""
    return export(request.param)


@pytest.fixture(scope="session", params=REWRITTEN)
def rewritten_family(request, export):
    """A network of most families, small where that is enough, for what rewrites files; every family in full at night."""
    return export(request.param)
