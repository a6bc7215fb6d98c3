"""Loading detectors: each layout's names, order of classes and conventions, and what is refused."""

import functools
import json

import pytest

from emca_deploy.networks.checkpoints import load_checkpoint
from zoo.checkpoints import saved
from zoo.detector_files import CLASSES, CONFIG, LEGACY_CONFIG, number, numbered, sections, shapes_of

MMDET_META = {"mmdet_version": "2.28.2+abcdef0", "config": CONFIG, "CLASSES": ("ant", "bee", "cat", "dog", "eel")}
ENGINE_META = {"mmengine_version": "0.10.7", "cfg": CONFIG, "dataset_meta": {"classes": ["ant", "bee", "cat", "dog", "eel"]}}
OLD_META = {"mmdet_version": "1.2.0+abcdef0", "config": LEGACY_CONFIG, "CLASSES": ["ant", "bee", "cat", "dog", "eel"]}


def wrapped(layout, tensors, kind="mask_rcnn"):
    """Return the dictionary that the layout's project saves. The configurations are those of Mask R-CNN."""
    if layout.startswith("torchvision"):
        return {"model": tensors, "epoch": 12} if layout == "torchvision-0.28" else tensors
    if kind == "retinanet":
        return {"state_dict": tensors, "meta": {"mmdet_version": "1.0.0" if layout == "mmdetection-1" else "2.0.0"}}
    text = OLD_META if layout == "mmdetection-1" else ENGINE_META
    if kind == "faster_rcnn":
        text = {key: value for key, value in text.items() if key not in ("config", "cfg")}
    return {"state_dict": tensors, "meta": text}


@pytest.fixture(scope="module")
def load(folder):
    """Return a function that returns the shapes in a file of a layout, and what was loaded of it, once for all tests."""

    @functools.cache
    def get(layout, kind, section=None):
        shapes = shapes_of(layout, section or kind)
        path = saved(folder, wrapped(layout, numbered(shapes), kind))
        return shapes, *load_checkpoint(path)

    return get


# (ours, the file's), one tensor of each part.
NAMES = {
    "mmdetection": {
        "backbone.stem.conv.weight": "backbone.conv1.weight",
        "backbone.stage3.block1.bn2.running_mean": "backbone.layer3.1.bn2.running_mean",
        "backbone.stage2.block0.shortcut.conv.weight": "backbone.layer2.0.downsample.0.weight",
        "fpn.lateral.2.weight": "neck.lateral_convs.2.conv.weight",
        "fpn.output.1.bias": "neck.fpn_convs.1.conv.bias",
        "fpn.extra.0.weight": "neck.fpn_convs.3.conv.weight",
        "fpn.extra.1.bias": "neck.fpn_convs.4.conv.bias",
        "rpn.conv.weight": "rpn_head.rpn_conv.weight",
        "rpn.objectness.bias": "rpn_head.rpn_cls.bias",
        "rpn.deltas.weight": "rpn_head.rpn_reg.weight",
        "roi.box.fc6.weight": "{roi}bbox_head.shared_fcs.0.weight",
        "roi.box.fc7.bias": "{roi}bbox_head.shared_fcs.1.bias",
        "roi.mask.convs.3.weight": "{roi}mask_head.convs.3.conv.weight",
        "roi.mask.upsample.bias": "{roi}mask_head.upsample.bias",
        "head.class_convs.2.weight": "bbox_head.cls_convs.2.conv.weight",
        "head.box_convs.3.bias": "bbox_head.reg_convs.3.conv.bias",
        "head.deltas.bias": "bbox_head.retina_reg.bias",
    },
    "torchvision-0.28": {
        "backbone.stem.conv.weight": "backbone.body.conv1.weight",
        "backbone.stage4.block0.shortcut.bn.running_var": "backbone.body.layer4.0.downsample.1.running_var",
        "fpn.lateral.1.bias": "backbone.fpn.inner_blocks.1.0.bias",
        "fpn.output.2.weight": "backbone.fpn.layer_blocks.2.0.weight",
        "fpn.extra.0.weight": "backbone.fpn.extra_blocks.p6.weight",
        "fpn.extra.1.weight": "backbone.fpn.extra_blocks.p7.weight",
        "rpn.conv.bias": "rpn.head.conv.0.0.bias",
        "rpn.objectness.weight": "rpn.head.cls_logits.weight",
        "rpn.deltas.bias": "rpn.head.bbox_pred.bias",
        "roi.box.fc6.bias": "roi_heads.box_head.fc6.bias",
        "roi.box.fc7.weight": "roi_heads.box_head.fc7.weight",
        "roi.mask.convs.2.bias": "roi_heads.mask_head.2.0.bias",
        "roi.mask.upsample.weight": "roi_heads.mask_predictor.conv5_mask.weight",
        "head.class_convs.1.weight": "head.classification_head.conv.1.0.weight",
        "head.box_convs.3.weight": "head.regression_head.conv.3.0.weight",
        "head.deltas.weight": "head.regression_head.bbox_reg.weight",
    },
    "torchvision-0.5": {
        "fpn.lateral.1.bias": "backbone.fpn.inner_blocks.1.bias",
        "fpn.output.2.weight": "backbone.fpn.layer_blocks.2.weight",
        "rpn.conv.bias": "rpn.head.conv.bias",
        "roi.mask.convs.0.bias": "roi_heads.mask_head.mask_fcn1.bias",
        "roi.mask.convs.3.weight": "roi_heads.mask_head.mask_fcn4.weight",
        "head.class_convs.1.weight": "head.classification_head.conv.2.weight",
        "head.box_convs.3.weight": "head.regression_head.conv.6.weight",
    },
}
SCORES = {
    "mmdetection-3": "roi_head.bbox_head.fc_cls",
    "mmdetection-1": "bbox_head.fc_cls",
    "torchvision-0.28": "roi_heads.box_predictor.cls_score",
    "torchvision-0.5": "roi_heads.box_predictor.cls_score",
}
DELTAS = {
    "mmdetection-3": "roi_head.bbox_head.fc_reg",
    "mmdetection-1": "bbox_head.fc_reg",
    "torchvision-0.28": "roi_heads.box_predictor.bbox_pred",
    "torchvision-0.5": "roi_heads.box_predictor.bbox_pred",
}
MASKS = {
    "mmdetection-3": "roi_head.mask_head.conv_logits",
    "mmdetection-1": "mask_head.conv_logits",
    "torchvision-0.28": "roi_heads.mask_predictor.mask_fcn_logits",
    "torchvision-0.5": "roi_heads.mask_predictor.mask_fcn_logits",
}
RETINA = {"mmdetection-3": "bbox_head.retina_cls", "mmdetection-1": "bbox_head.retina_cls"}
BACKGROUND_FIRST = ("mmdetection-1", "torchvision-0.28", "torchvision-0.5")
LAYOUTS = list(SCORES)


def pairs(layout, shapes, state):
    """Return (our tensor, the file's name) of the parts that this detector has."""
    roi = "roi_head." if layout == "mmdetection-3" else ""
    table = NAMES["mmdetection" if layout.startswith("mmdetection") else layout]
    named = [(ours, theirs.format(roi=roi)) for ours, theirs in table.items()]
    return [(state[ours], theirs) for ours, theirs in named if theirs in shapes and ours in state]


def assert_row(shapes, tensor, row, name, their_row):
    """Check that each value of a row is that of the file's row."""
    assert tensor[row].unique().tolist() == [number(shapes, name, their_row)]


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_part_gets_its_own_tensors(load, layout, kind):
    shapes, module, spec = load(layout, kind)
    assert (spec.arch, spec.num_classes) == (f"{kind}_resnet18_fpn", CLASSES)
    state = module.state_dict()
    checked = pairs(layout, shapes, state)
    assert len(checked) >= (3 if layout == "torchvision-0.5" else 7)
    for tensor, theirs in checked:
        assert tensor.shape == shapes[theirs]
        assert_row(shapes, tensor, len(tensor) - 1, theirs, len(tensor) - 1)
    learned = [name for name in state if not name.endswith("num_batches_tracked")]
    assert len(learned) == len(shapes)


@pytest.mark.parametrize("end", ["weight", "bias"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_of_an_rcnn_keep_their_rows(load, layout, end):
    shapes, module, _ = load(layout, "mask_rcnn")
    state = module.state_dict()
    first = 1 if layout in BACKGROUND_FIRST else 0
    scores, deltas, masks = (f"{table[layout]}.{end}" for table in (SCORES, DELTAS, MASKS))
    assert_row(shapes, state[f"roi.box.scores.{end}"], CLASSES, scores, 0 if first else CLASSES)
    for label in range(CLASSES):
        assert_row(shapes, state[f"roi.box.scores.{end}"], label, scores, label + first)
        assert_row(shapes, state[f"roi.mask.logits.{end}"], label, masks, label + first)
        for side in range(4):
            assert_row(shapes, state[f"roi.box.deltas.{end}"], 4 * label + side, deltas, 4 * (label + first) + side)
    assert len(state[f"roi.box.deltas.{end}"]) == 4 * CLASSES
    assert len(state[f"roi.mask.logits.{end}"]) == CLASSES


@pytest.mark.parametrize("end", ["weight", "bias"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_of_retinanet_keep_their_rows_at_each_anchor(load, layout, end):
    shapes, module, _ = load(layout, "retinanet")
    name = f"{RETINA.get(layout, 'head.classification_head.cls_logits')}.{end}"
    background = 1 if layout.startswith("torchvision") else 0  # torchvision has a class 0 that no object has
    for anchor in range(9):
        for label in range(CLASSES):
            theirs = anchor * (CLASSES + background) + label + background
            assert_row(shapes, module.state_dict()[f"head.scores.{end}"], anchor * CLASSES + label, name, theirs)


def config_of(load, layout, kind, section=None):
    return load(layout, kind, section)[2].detector


def test_conventions_of_torchvision(load):
    found = config_of(load, "torchvision-0.28", "mask_rcnn")
    assert (found.roi_aligned, found.roi_sampling_ratio, found.plus_one) == (False, 2, False)
    assert (found.anchor_rounding, found.anchor_strides, found.anchor_centre) == ("nearest", "divided", 0)
    assert (found.anchor_sizes, found.box_weights) == (((32,), (64,), (128,), (256,), (512,)), (10, 10, 5, 5))
    assert (found.rpn_min_size, found.box_min_size, found.score_threshold) == (1e-3, 1e-2, 0.05)


def test_conventions_of_mmdetection_are_those_of_its_configuration(load):
    found = config_of(load, "mmdetection-3", "mask_rcnn")
    assert (found.roi_aligned, found.roi_sampling_ratio, found.plus_one, found.anchor_rounding) == (True, 0, False, "none")
    assert (found.pre_nms, found.post_nms, found.max_detections) == (900, 800, 60)
    assert (found.score_threshold, found.nms_threshold, found.rpn_nms_threshold) == (0.02, 0.45, 0.7)
    assert found.box_weights == (10, 10, 5, 5)
    assert found.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert (found.fpn_channels, found.box_head_width, found.box_bins) == (32, 48, 7)


def test_conventions_of_mmdetection_1_are_those_of_its_configuration(load):
    _, _, spec = load("mmdetection-1", "mask_rcnn")
    found = spec.detector
    assert (found.roi_aligned, found.roi_sampling_ratio, found.plus_one, found.roi_plus_one) == (False, 2, True, True)
    assert (found.anchor_rounding, found.max_detections, found.nms_threshold) == ("legacy", 60, 0.45)
    assert found.class_names == ("ant", "bee", "cat", "dog", "eel")
    images = spec.preprocessing
    assert (images.channels, images.scale, images.std) == ("bgr", 1, (1, 1, 1))
    assert images.mean == (102.9801, 115.9465, 122.7717)
    assert (images.resize, images.pad) == ("letterbox", "end")


def test_normalization_of_each_project(load):
    vision = load("torchvision-0.28", "faster_rcnn")[2].preprocessing
    assert (vision.scale, vision.channels, vision.mean) == (255, "rgb", (0.485, 0.456, 0.406))
    mmdetection = load("mmdetection-3", "mask_rcnn")[2].preprocessing
    assert (mmdetection.scale, mmdetection.channels, mmdetection.mean) == (1, "rgb", (123.675, 116.28, 103.53))


@pytest.mark.parametrize(("layout", "section", "source"), [
    ("torchvision-0.28", "retinanet", "p5"), ("torchvision-0.28", "retinanet_c5", "c5"), ("mmdetection-3", "retinanet", "c5"),
])  # fmt: skip
def test_p6_comes_from_the_level_that_its_shape_shows(load, layout, section, source):
    found = config_of(load, layout, "retinanet", section)
    assert (found.p6_from, found.relu_before_p7) == (source, layout.startswith("torchvision"))


def test_retinanet_of_either_mmdetection(load):
    new, old = config_of(load, "mmdetection-3", "retinanet"), config_of(load, "mmdetection-1", "retinanet")
    assert (new.plus_one, new.anchor_rounding) == (False, "none")
    assert (old.plus_one, old.anchor_rounding) == (True, "legacy")
    assert new.anchor_sizes[0] == pytest.approx((32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)))


def test_frozen_batch_norm_of_old_torchvision_has_no_epsilon(load):
    shapes, module, spec = load("torchvision-0.5", "faster_rcnn")
    front = "backbone.body.layer1.0.bn1"
    bn = module.requires_grad_(False).backbone.stage1.block0.bn1
    variance = number(shapes, f"{front}.running_var", 3)
    expected = number(shapes, f"{front}.weight", 3) / variance**0.5
    assert float(bn.weight[3] / (bn.running_var[3] + bn.eps) ** 0.5) == pytest.approx(expected, rel=1e-6)
    assert any("epsilon" in fact for fact in spec.source.assumed)


def test_caffe_style_puts_the_stride_on_the_first_convolution(tmp_path):
    path = bottleneck_file(tmp_path, CONFIG.replace("style='pytorch'", "style='caffe'").replace("depth=18", "depth=50"))
    module, spec = load_checkpoint(path)
    block = module.backbone.stage2.block0
    assert (block.conv1.stride, block.conv2.stride, module.backbone.stem.pool.padding) == ((2, 2), (1, 1), 1)
    assert spec.options["caffe"] == "stride"


def bottleneck_file(folder, text):
    """Write a Mask R-CNN over a ResNet-50 in the names of mmdetection."""
    from zoo.foreign_resnets import ForeignResNet

    shapes = dict(sections("mmdetection-3")["mask_rcnn"])
    for level in range(4):
        shapes[f"neck.lateral_convs.{level}.conv.weight"] = (32, 256 * 2**level, 1, 1)
    body = {f"backbone.{name}": tuple(value.shape) for name, value in ForeignResNet(50, 6).state_dict().items()}
    body = {name: shape for name, shape in body.items() if shape and ".fc." not in name}
    return saved(folder, {"state_dict": numbered(body | shapes), "meta": {"config": text}})


@pytest.mark.parametrize("arch", ["eca_resnet18", "emca_eca_resnet18", "emca_se_resnet18", "pkcam_eca_resnet18"])
def test_backbones_in_our_own_names(tmp_path, arch):
    from emca_deploy.networks.fitting import Inferred, empty_network

    body = {f"backbone.{name}": tuple(value.shape) for name, value in empty_network(Inferred(arch), 6).state_dict().items()}
    body = {name: shape for name, shape in body.items() if shape}  # with the classifier, which a detector leaves unused
    shapes = body | sections("mmdetection-3")["mask_rcnn"]
    tensors = numbered(shapes)
    module, spec = load_checkpoint(saved(tmp_path, {"state_dict": tensors, "meta": MMDET_META}))
    assert spec.arch == f"mask_rcnn_{arch}_fpn"
    state = module.backbone.state_dict()
    learned = [name for name in state if not name.endswith("num_batches_tracked")]
    assert all((state[name] == tensors[f"backbone.{name}"]).all() for name in learned)


def test_eca_in_the_names_of_ecanet(tmp_path):
    body = dict(sections("mmdetection-1")["body"])
    for stage, kernel in enumerate((3, 3, 5, 5), 1):
        body |= {f"backbone.layer{stage}.{block}.eca.conv.weight": (1, 1, kernel) for block in range(2)}
    shapes = body | sections("mmdetection-1")["faster_rcnn"]
    _, spec = load_checkpoint(saved(tmp_path, {"state_dict": numbered(shapes), "meta": {"mmdet_version": "1.0.0"}}))
    assert (spec.arch, spec.layout) == ("faster_rcnn_eca_resnet18_fpn", "mmdetection-1")


@pytest.mark.parametrize("kind", ["retinanet", "mask_rcnn"])
def test_our_own_checkpoint_keeps_its_configuration(tmp_path, kind):
    safetensors = pytest.importorskip("safetensors.torch")
    from emca_deploy.errors import CheckpointError
    from emca_deploy.networks.registry import create_model
    from emca_deploy.preprocessing import PreprocessingOptions
    from emca_deploy.results.codec import to_json

    sizes = tuple((8.0 * 2**level,) for level in range(5))
    options = {"fpn_channels": 16, "anchor_sizes": sizes, "class_names": ("ant", "bee"), "nms_threshold": 0.6}
    options |= {} if kind == "retinanet" else {"box_head_width": 24}
    made = create_model(f"{kind}_emca_eca_resnet18_fpn", 2, **options).eval()
    path = tmp_path / "own.safetensors"
    pixels = PreprocessingOptions(image_size=96, mean=(0.2,), std=(0.3,))
    metadata = {"detector": json.dumps(to_json(made.config)), "preprocessing": json.dumps(to_json(pixels))}
    safetensors.save_file(made.state_dict(), path, metadata)
    module, spec = load_checkpoint(path)
    assert spec.preprocessing == pixels
    assert spec.detector == made.config
    assert spec.source.assumed == ()
    assert all((value == made.state_dict()[name]).all() for name, value in module.state_dict().items())
    safetensors.save_file(made.state_dict(), path, {**metadata, "preprocessing": '{"image_size": "large"}'})
    with pytest.raises(CheckpointError, match=r"own\.safetensors"):
        load_checkpoint(path)


def test_deltas_and_masks_that_all_classes_share_are_repeated(tmp_path):
    shapes = shapes_of("mmdetection-3", "mask_rcnn")
    shapes |= {"roi_head.bbox_head.fc_reg.weight": (4, 48), "roi_head.bbox_head.fc_reg.bias": (4,)}
    shapes |= {"roi_head.mask_head.conv_logits.weight": (1, 32, 1, 1), "roi_head.mask_head.conv_logits.bias": (1,)}
    module, _ = load_checkpoint(saved(tmp_path, {"state_dict": numbered(shapes), "meta": MMDET_META}))
    for label in range(CLASSES):
        assert_row(shapes, module.roi.mask.logits.bias, label, "roi_head.mask_head.conv_logits.bias", 0)
        for side in range(4):
            assert_row(shapes, module.roi.box.deltas.weight, 4 * label + side, "roi_head.bbox_head.fc_reg.weight", side)


def test_export_takes_the_normalization_of_the_checkpoint(load):
    from emca_deploy.exporting.detectors import detector_preprocessing
    from emca_deploy.preprocessing import PreprocessingOptions

    trained = load("mmdetection-1", "mask_rcnn")[2].preprocessing
    used = detector_preprocessing(PreprocessingOptions(std=(2.0, 2.0, 2.0)), trained)
    assert (used.channels, used.mean, used.std) == ("bgr", (102.9801, 115.9465, 122.7717), (2, 2, 2))
