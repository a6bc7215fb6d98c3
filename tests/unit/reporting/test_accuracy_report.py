import io

import numpy as np
from rich.console import Console

from emca_deploy.reporting.accuracy import print_accuracy
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.flips import ImageNames


def report_of(images=1000, lost=6, won=2, names=None):
    """The reference is wrong on the `won` images only, the candidate on `lost` of the others."""
    labels = np.arange(images) % 4
    reference, candidate = labels.copy(), labels.copy()
    candidate[:lost] = (labels[:lost] + 1) % 4
    reference[lost : lost + won] = (labels[lost : lost + won] + 1) % 4
    ours, theirs = (4 * np.eye(4, dtype=np.float32)[predicted] for predicted in (candidate, reference))
    return compare("int8.onnx", ours, labels, "fp32.onnx", theirs, names)


def test_classes_flips_and_confidence_are_printed_by_name_and_hostile_names_tamed():
    names = ImageNames(("ant", "b\x1b[2J", "cat", "dog"), None, tuple(f"{i}.png" for i in range(1000)))
    out = io.StringIO()
    print_accuracy(report_of(names=names), Console(file=out, width=120))
    text = out.getvalue()
    assert "mean confidence 94.79%, ECE" in text
    assert "flips 8: right to wrong 6, wrong to right 2, wrong to wrong 0" in text
    assert "McNemar p 0.289" in text
    assert "flip: 1.png (is b?[2J): b?[2J became cat" in text
    assert "most often confused: ant as b?[2J 2" in text
    assert "\x1b" not in text
