"""The network's output of each category of COCO's annotations."""

from collections.abc import Sequence

import numpy as np

from emca_deploy._text import printable
from emca_deploy.arrays import Int64Array
from emca_deploy.data.coco import Category
from emca_deploy.data.label_files import read_class_map
from emca_deploy.data.labels import MAX_CLASSES
from emca_deploy.errors import DataError, InputError
from emca_deploy.preprocessing import Labelling

__all__ = ["label_categories"]


def label_categories(categories: Sequence[Category], labelling: Labelling) -> Int64Array:
    """Return the output of each category, (categories,) int64.

    By default the category with the lowest id is output 0, the next one output 1, whatever holes the ids have. With the class
    order "index" the id is the output. The offset is added to either.

    Args:
        categories: Categories by rising id.
        labelling: The user's facts about labels.

    Raises:
        InputError: an option does not go with annotations.
        DataError: the class map cannot be read or lacks a category, or an output is negative or too high.
    """
    if labelling.labels is not None:
        raise InputError("--labels does not go with --annotations", "leave one of the two out")
    if labelling.order == "string":
        raise InputError("--class-order string does not go with --annotations", "use number or index, or --class-map FILE")
    if labelling.class_map is not None:
        known = read_class_map(labelling.class_map)
        missing = [category.name for category in categories if category.name not in known]
        if missing:
            problem = f"{labelling.class_map}: has no output for {len(missing)} of {len(categories)} categories"
            raise DataError(f"{problem}, the first is '{printable(missing[0])}'", "add them: lines of 'name output'")
        outputs = [known[category.name] for category in categories]
    elif labelling.order == "index":
        outputs = [category.id for category in categories]
    else:
        outputs = list(range(len(categories)))
    for category, output in zip(categories, outputs, strict=True):
        if not 0 <= output + labelling.offset < MAX_CLASSES:
            problem = f"category '{printable(category.name)}' has output {output + labelling.offset}, which no network has"
            raise DataError(problem, "give another --label-offset or --class-order")
    return np.array(outputs, np.int64) + labelling.offset
