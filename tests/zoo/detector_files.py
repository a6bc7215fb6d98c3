"""Checkpoints of detectors in other projects' layouts, written from lists of names and shapes (tests/data/detectors)."""

import functools
from pathlib import Path

KEYS = Path(__file__).parents[1] / "data" / "detectors"
CLASSES = 5

CONFIG = """\
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', **norm, bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch'),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=32, num_outs=5),
    rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0])),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(
            type='Shared2FCBBoxHead', fc_out_channels=48, num_classes=5,
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            featmap_strides=[4, 8, 16, 32]),
        mask_head=dict(type='FCNMaskHead', num_convs=4, num_classes=5)),
    test_cfg=dict(
        rpn=dict(nms_pre=900, max_per_img=800, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.02, nms=dict(type='nms', iou_threshold=0.45), max_per_img=60)))
"""
"""Configuration of a Mask R-CNN as mmdetection 2.x and 3.x write it, of the sizes of the lists of names."""

LEGACY_CONFIG = """\
# model settings
model = dict(
    type='MaskRCNN',
    pretrained='torchvision://resnet18',
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch'),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=32, num_outs=5),
    rpn_head=dict(
        type='RPNHead', in_channels=32, feat_channels=32, anchor_scales=[8], anchor_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[4, 8, 16, 32, 64], target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0],
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)),
    bbox_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2), featmap_strides=[4, 8, 16, 32]),
    bbox_head=dict(
        type='SharedFCBBoxHead', num_fcs=2, fc_out_channels=48, num_classes=6, target_stds=[0.1, 0.1, 0.2, 0.2]),
    mask_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2), featmap_strides=[4, 8, 16, 32]),
    mask_head=dict(type='FCNMaskHead', num_convs=4, num_classes=6))
test_cfg = dict(
    rpn=dict(nms_pre=900, nms_post=900, max_num=800, nms_thr=0.7, min_bbox_size=0),
    rcnn=dict(score_thr=0.02, nms=dict(type='nms', iou_thr=0.45), max_per_img=60))
img_norm_cfg = dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], to_rgb=False)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='Normalize', **img_norm_cfg), dict(type='Pad', size_divisor=32)])]
"""
"""Configuration of a Mask R-CNN as mmdetection 1.x writes it, with Caffe's normalization."""


@functools.cache
def sections(name):
    """Return the shapes by name of each section of a list of names."""
    found = {}
    for line in (KEYS / f"{name}.keys.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = found[line.strip("[]")] = {}
        elif not line.startswith("#"):
            key, _, shape = line.partition(" ")
            current[key] = () if shape == "-" else tuple(map(int, shape.split("x")))
    return found


def shapes_of(layout, kind):
    """Return the shapes by name of a detector in another project's layout."""
    return sections(layout)["body"] | sections(layout)[kind]


def numbered(shapes, start=1):
    """Return tensors whose row r is all 1000 * (place of the tensor) + r, divided by 1024; their files are small."""
    import torch

    tensors = {}
    for place, (name, shape) in enumerate(shapes.items(), start):
        rows = torch.arange(shape[0] if shape else 1) if shape else torch.zeros(1)
        first = (1000 * place + rows) / 1024
        tensors[name] = first.reshape(-1, *[1] * (len(shape) - 1)).expand(shape) if shape else torch.tensor(0.5)
    return tensors


def number(shapes, name, row):
    """Return the value that `numbered` gives a row."""
    return (1000 * (list(shapes).index(name) + 1) + row) / 1024
