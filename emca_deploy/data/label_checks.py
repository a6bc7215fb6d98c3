"""Whether a data set's labels can be those of a network: what cannot be is refused, what may be wrong is said."""

from emca_deploy.data.labels import Labels, LabelsFound
from emca_deploy.errors import DataError

__all__ = ["check_classes", "class_warnings"]


def check_classes(name: str, labels: Labels, outputs: int) -> None:
    """Refuse labels that are no outputs of a network.

    Args:
        name: the network's.
        labels: (N,) int64.
        outputs: the width of its logits.

    Raises:
        DataError: a label is negative or too high.
    """
    highest, lowest = int(labels.max()), int(labels.min())
    if lowest >= 0 and highest < outputs:
        return
    wrong = highest if highest >= outputs else lowest
    remedy = "name a data set of the model's own classes, one subfolder per class"
    if highest == outputs and lowest >= 1:
        remedy = "if labels count from 1: --label-offset -1"
    elif highest >= outputs:
        remedy += ", or say with --class-map which output each class is"
    raise DataError(f"the data set has label {wrong}, but {name} has {outputs} classes", remedy)


def class_warnings(found: LabelsFound, outputs: int) -> tuple[str, ...]:
    """Return what may be wrong with labels although each is an output of the network.

    Args:
        found: the labels.
        outputs: the width of its logits.
    """
    if found.count == outputs or (found.said and found.source != "file"):
        return ()
    things = "class folders" if found.source == "folders" else "classes"
    problem = f"the data set has {found.count} {things}, but the network has {outputs} outputs"
    contiguous = int(found.labels.max()) == found.count - 1
    if found.count == outputs - 1 and contiguous:
        return (f"{problem}, one more: if output 0 is a background class, --label-offset 1 skips it",)
    if found.said:
        return ()
    numbers = [int(name) for name in found.classes if name.isascii() and name.isdigit()]
    if found.source == "folders" and len(numbers) == found.count and max(numbers) < outputs:
        remedy = "if their names are the outputs: --class-order index; otherwise --class-map FILE"
    else:
        remedy = "--class-map FILE says which output each class is"
    return (f"{problem}: the first is taken for output 0, the next for output 1; {remedy}",)
