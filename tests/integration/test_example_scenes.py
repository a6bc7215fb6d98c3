"""The example's scenes are exact, and its training can be stopped and continued."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = 96


@pytest.fixture
def scenes(monkeypatch):
    """Return the names of the example that makes scenes."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import fashion_scenes

    return fashion_scenes


@pytest.fixture
def garments(scenes):
    """Return bright discs, one for each class."""
    row, column = np.mgrid[:28, :28] - 13.5
    disc = np.where(row**2 + column**2 < 120, 200, 0).astype(np.uint8)
    return scenes.Garments(np.repeat(disc[None], 10, axis=0), np.arange(10, dtype=np.uint8))


def test_a_scene_depends_on_its_seed_and_number_only(scenes, garments):
    one, same, other = (scenes.make_scene(garments, SIZE, 3, number) for number in (5, 5, 6))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.owner, same.owner)
    assert not np.array_equal(one.image, other.image)


def test_boxes_and_masks_are_exact_and_garments_mostly_visible(scenes, garments):
    counts = set()  # the smallest garment is a disc of 0.48 of a square of side 24
    for number in range(40):
        scene = scenes.make_scene(garments, SIZE, 0, number)
        masks, boxes = scene.masks(), scene.boxes()
        assert masks.shape == (len(scene.labels), SIZE, SIZE)
        assert not (masks.sum(0) > 1).any()
        for mask, (left, top, right, below) in zip(masks, boxes.astype(int), strict=True):
            assert mask.sum() == mask[top:below, left:right].sum()
            assert mask[top:below, left].any()
            assert mask[top:below, right - 1].any()
            assert mask[top, left:right].any()
            assert mask[below - 1, left:right].any()
            assert mask.sum() > (1 - scenes.MOST_COVERED) * 0.4 * 24**2
        counts.add(len(scene.labels))
    assert counts >= {1, 2, 3, 4}


def test_annotations_are_those_of_coco(scenes, garments, tmp_path):
    made = [scenes.make_scene(garments, SIZE, 0, number) for number in range(3)]
    document = scenes.annotations(made)
    assert [image["id"] for image in document["images"]] == [1, 2, 3]
    for each in document["annotations"]:
        counts, size = each["segmentation"]["counts"], each["segmentation"]["size"]
        pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
        rows, columns = np.nonzero(pixels)
        assert each["area"] == pixels.sum()
        left, top = columns.min(), rows.min()
        assert each["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
    labels = [each["category_id"] - 1 for each in document["annotations"]]
    assert labels == np.concatenate([scene.labels for scene in made]).tolist()
    scenes.write_images(tmp_path / "a.zip", made)
    scenes.write_images(tmp_path / "b.zip", made)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.slow
def test_training_continues_where_it_stopped(tmp_path, monkeypatch, capsys):
    from safetensors import safe_open

    from emca_deploy.networks.registry import create_model
    from emca_deploy.results import codec
    from emca_deploy.tasks.detector_config import DetectorConfig

    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    output = tmp_path / "net.safetensors"
    for epochs in (1, 2):
        arguments = ["-o", output, "--resume", "--epochs", epochs, "--steps-per-epoch", 2, "--batch", 2, "--test", 2]
        monkeypatch.setattr(sys, "argv", ["train_scenes.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / "train_scenes.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    with safe_open(output, "pt") as file:
        config = codec.from_json(DetectorConfig, json.loads(file.metadata()["detector"]))
        names = set(file.keys())
    model = create_model("mask_rcnn_emca_eca_resnet18_fpn", **vars(config))
    assert names == {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}


def test_the_sample_scenes_are_annotated(scenes):
    from emca_deploy.data.coco import read_coco
    from emca_deploy.data.sources import open_source
    from emca_deploy.preprocessing import Preprocessing

    annotations = read_coco(EXAMPLES / "data/test_scenes.json")
    assert annotations.warnings == ()
    assert tuple(category.name for category in annotations.categories) == scenes.CLASSES
    annotations.check_masks()
    used = Preprocessing(SIZE, SIZE, (0.0,) * 3, (1.0,) * 3)
    test = open_source(EXAMPLES / "data/test_scenes.zip", used, images=annotations.files)
    assert (len(test), test.image_size(199)) == (200, (SIZE, SIZE))
    calibration = open_source(EXAMPLES / "data/calibration_scenes.zip", used)
    assert (len(calibration), calibration.load(99).shape) == (100, (3, SIZE, SIZE))
