"""Short names of cells: only the values that differ between the cells of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from emca_deploy.reporting.formats import plain
from emca_deploy.results.sweep import SweepCell, SweepRow

__all__ = ["VALUES", "names_of", "shown_value", "varied_values"]

VALUES = ("model", "image_size", "backend", "precision", "target", "scenario", "batch", "threads")


def varied_values(rows: Sequence[SweepRow]) -> tuple[str, ...]:
    """Return the values that differ between cells, in order; the model alone where all are the same."""
    found = tuple(name for name in VALUES if len({getattr(row.cell, name) for row in rows}) > 1)
    return found or ("model",)


def shown_value(cell: SweepCell, name: str) -> str:
    """Return one value of a cell in words."""
    value = getattr(cell, name)
    if value is None:
        return "own size" if name == "image_size" else "default"
    return plain(str(value))


def names_of(rows: Sequence[SweepRow]) -> dict[str, str]:
    """Return the short name of each cell by its key: "model.onnx openvino int8 batch 8"."""
    varied = varied_values(rows)
    models = _short_models([row.cell.model for row in rows])
    return {row.key: " ".join(_part(row.cell, name, models) for name in varied) for row in rows}


def _part(cell: SweepCell, name: str, models: Mapping[str, str]) -> str:
    if name == "model":
        return models[cell.model]
    word = {"batch": "batch ", "threads": "threads "}.get(name, "")
    return word + shown_value(cell, name)


def _short_models(models: Sequence[str]) -> dict[str, str]:
    """Return the last part of each path, where these differ."""
    distinct = dict.fromkeys(models)
    short = {model: PurePath(model).name or model for model in distinct}
    unique = len(set(short.values())) == len(short)
    return {model: plain(name if unique else model) for model, name in short.items()}
