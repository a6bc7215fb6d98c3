"""Detectors over any of the backbones: RetinaNet, Faster R-CNN and Mask R-CNN."""
