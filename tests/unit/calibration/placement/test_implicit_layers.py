"""Which layers a cache leaves in float."""

from emca_deploy.calibration.placement.implicit_layers import float_layers


def test_the_stem_and_attention_stay_in_float(exported) -> None:
    names = float_layers(exported("emca_eca_resnet18"))
    assert "stem.conv" in names
    assert all(name == "stem.conv" or ".attention." in name for name in names)
    assert len(names) > 1
