"""The range table: measured once, saved, checked by hash, reused by every backend's placement."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from emca_deploy._version import __version__
from emca_deploy.artifacts import Preprocessing, write_json
from emca_deploy.calibration.observers import TensorRange
from emca_deploy.errors import InputError

__all__ = ["RangeTable", "TableKey", "read_table", "table_path", "write_table"]

TABLE_VERSION = 1


@dataclass(frozen=True)
class TableKey:
    """What a table's ranges depend on; a table is reused only where all of it is equal.

    Attributes:
        model_sha256: of the fp32 ONNX file.
        data_sha256: of the calibration data set's content.
        preprocessing: how its images became input; None where the data set holds finished input.
        method: how ranges come from values ("minmax").
        samples: images used.
        seed: of the choice of images.
    """

    model_sha256: str
    data_sha256: str
    preprocessing: Preprocessing
    method: str
    samples: int
    seed: int


@dataclass(frozen=True)
class RangeTable:
    """Ranges by tensor name, with what they depend on."""

    key: TableKey
    ranges: dict[str, TensorRange]


def table_path(model: Path) -> Path:
    """Return where the range table of a model lies unless one is named: beside the model."""
    return model.with_name(model.stem + ".ranges.json")


def write_table(path: Path, table: RangeTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    ranges = {name: [r.minimum, r.maximum] for name, r in table.ranges.items()}
    write_json(path, {"table_version": TABLE_VERSION, "emca_deploy": __version__, "key": asdict(table.key), "ranges": ranges})


def read_table(path: Path) -> RangeTable:
    """Read a table.

    Raises:
        InputError: it is not a table of ours, or of another version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        _check_version(document["table_version"])
        key = dict(document["key"])
        key["preprocessing"] = Preprocessing.from_dict(key["preprocessing"])
        ranges = {str(name): TensorRange(float(low), float(high)) for name, (low, high) in document["ranges"].items()}
        return RangeTable(TableKey(**key), ranges)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(f"{path}: not a range table of ours: {exc}", "delete it and calibrate again") from exc


def _check_version(version: object) -> None:
    if version != TABLE_VERSION:
        raise ValueError(f"table version {version}, this emca-deploy reads {TABLE_VERSION}")
