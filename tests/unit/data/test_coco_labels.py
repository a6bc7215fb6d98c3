from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.data.coco import Category
from emca_deploy.data.coco_labels import label_categories
from emca_deploy.errors import DataError, InputError
from emca_deploy.preprocessing import Labelling

CATEGORIES = (Category(1, "person"), Category(44, "bottle"), Category(90, "toothbrush"))


@pytest.mark.parametrize(
    ("labelling", "outputs"),
    [
        (Labelling(), [0, 1, 2]),
        (Labelling(order="number"), [0, 1, 2]),
        (Labelling(offset=1), [1, 2, 3]),
        (Labelling(order="index"), [1, 44, 90]),
        (Labelling(order="index", offset=-1), [0, 43, 89]),
    ],
)
def test_outputs(labelling, outputs):
    assert label_categories(CATEGORIES, labelling).tolist() == outputs


def test_a_class_map(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("person 7\nbottle 2\ntoothbrush 0\nzebra 1\n")
    assert label_categories(CATEGORIES, Labelling(class_map=path)).tolist() == [7, 2, 0]
    path.write_text("person 7\n")
    with refusing(DataError, "map.txt", "bottle"):
        label_categories(CATEGORIES, Labelling(class_map=path))


@pytest.mark.parametrize(
    ("labelling", "kind"),
    [
        (Labelling(labels=Path("labels.txt")), InputError),
        (Labelling(order="string"), InputError),
        (Labelling(offset=-1), DataError),
        (Labelling(offset=1 << 21), DataError),
    ],
)
def test_what_does_not_go_with_annotations(labelling, kind):
    with refusing(kind):
        label_categories(CATEGORIES, labelling)
