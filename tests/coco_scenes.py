"""Random annotations in COCO's format, detections of them, and the figures of pycocotools' own COCOeval."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy.data.rle import compress, counts_of_crop
from emca_deploy.tasks.detections import Detections

CATEGORY_IDS = (3, 7, 8, 90)
"""Ids with holes."""


def scene_document(images: int, seed: int = 0, *, most: int = 6) -> dict[str, Any]:
    """Return annotations of images of different sizes; some have no object, some objects are crowds, masks are of all kinds."""
    rng = np.random.default_rng(seed)
    document: dict[str, Any] = {
        "images": [
            {
                "id": 10 + 3 * index,
                "file_name": f"{index:04d}.png",
                "height": int(rng.integers(60, 260)),
                "width": int(rng.integers(60, 260)),
            }
            for index in range(images)
        ],
        "categories": [{"id": one, "name": f"kind {one}"} for one in CATEGORY_IDS],
        "annotations": [],
    }
    for image in document["images"]:
        for _ in range(int(rng.integers(0, most + 1))):
            document["annotations"].append(_object(rng, image, len(document["annotations"])))
    return document


def _object(rng: np.random.Generator, image: dict[str, Any], number: int) -> dict[str, Any]:
    height, width = image["height"], image["width"]
    w, h = rng.uniform(5, 0.8 * width), rng.uniform(5, 0.8 * height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    crowd = int(rng.random() < 0.1)
    found = {"id": number, "image_id": image["id"], "category_id": int(rng.choice(CATEGORY_IDS)), "iscrowd": crowd}
    found |= {"bbox": [round(x, 2), round(y, 2), round(w, 2), round(h, 2)], "area": round(0.8 * w * h, 2)}
    if crowd or rng.random() < 0.3:
        counts = box_counts((x, y, x + w, y + h), (height, width))
        text = counts.tolist() if crowd else compress(counts).decode()
        return {**found, "segmentation": {"size": [height, width], "counts": text}}
    corners = [x, y, x + w, y, x + w, y + h, x + w / 2, y + 0.8 * h, x, y + h]
    return {**found, "segmentation": [[round(one, 2) for one in corners]]}


def box_counts(box: tuple[float, float, float, float], size: tuple[int, int]) -> Any:
    """Return the run lengths of a box that is filled."""
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(size[1], round(box[2])), min(size[0], round(box[3]))
    return counts_of_crop(np.ones((max(bottom - top, 0), max(right - left, 0)), np.bool_), top, left, size)


def scene_detections(document: dict[str, Any], seed: int = 1, *, distort: float = 0.1, most_false: int = 8) -> Detections:
    """Return detections near most objects, and false ones; labels are the positions of the category ids."""
    rng = np.random.default_rng(seed)
    counts, boxes, scores, labels, texts = [], [], [], [], []
    for image in document["images"]:
        size = (image["height"], image["width"])
        own = [one for one in document["annotations"] if one["image_id"] == image["id"] and rng.random() < 0.9]
        found = [(*_near(rng, one["bbox"], distort), CATEGORY_IDS.index(one["category_id"])) for one in own]
        for _ in range(int(rng.integers(0, most_false))):
            x, y = rng.uniform(0, size[1] - 10), rng.uniform(0, size[0] - 10)
            false = (x, y, x + rng.uniform(5, 50), y + rng.uniform(5, 50))
            found.append((*false, int(rng.integers(len(CATEGORY_IDS)))))
        own_scores = np.sort(np.round(rng.random(len(found)), 2).astype(np.float32))[::-1]  # rounded: ties occur
        counts.append(len(found))
        for (*box, label), score in zip((found[i] for i in rng.permutation(len(found))), own_scores, strict=True):
            boxes.append(box)
            labels.append(label)
            scores.append(score)
            texts.append(compress(box_counts(tuple(box), size)))
    return Detections(
        counts=np.array(counts, np.int64),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
        mask_text=np.frombuffer(b"".join(texts), np.uint8),
        mask_lengths=np.array([len(text) for text in texts], np.int64),
    )


def _near(rng: np.random.Generator, box: list[float], distort: float) -> tuple[float, float, float, float]:
    x, y, w, h = box
    dx, dy, dw, dh = rng.normal(0, distort, 4)
    return x + dx * w, y + dy * h, x + dx * w + w * np.exp(dw), y + dy * h + h * np.exp(dh)


def write_document(folder: Path, document: dict[str, Any]) -> Path:
    """Write the annotations to a file."""
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def coco_stats(document: dict[str, Any], detections: Detections, kind: str, copies: Any = None) -> tuple[list[float], Any]:
    """Return COCOeval's 12 figures and precision array; with `copies`, of a set in which image i occurs copies[i] times."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    whole, results = {**document, "images": [], "annotations": []}, []
    texts, rows = detections.mask_texts(), list(detections.rows())
    order = np.argsort([image["id"] for image in document["images"]])
    for place in order:
        image = document["images"][place]
        for _ in range(1 if copies is None else int(copies[place])):
            own = len(whole["images"]) + 1
            whole["images"].append({**image, "id": own})
            for one in document["annotations"]:
                if one["image_id"] == image["id"]:
                    whole["annotations"].append({**one, "image_id": own, "id": len(whole["annotations"]) + 1})
            for index in range(rows[place].start, rows[place].stop):
                x1, y1, x2, y2 = detections.boxes[index].astype(np.float64)
                found = {"image_id": own, "score": float(detections.scores[index])}
                found["category_id"] = CATEGORY_IDS[detections.labels[index]]
                mask = {"size": [image["height"], image["width"]], "counts": texts[index]}
                results.append({**found, **({"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "box" else {"segmentation": mask})})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(whole))
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox" if kind == "box" else "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return list(evaluator.stats), evaluator.eval["precision"]
