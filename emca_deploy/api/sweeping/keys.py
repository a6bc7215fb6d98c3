"""The key of a cell: a digest of everything that its result depends on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from emca_deploy._optional import installed_version
from emca_deploy._version import __version__
from emca_deploy.api.sweeping.models import Model
from emca_deploy.api.sweeping.plan import Plan
from emca_deploy.artifacts import read_manifest, sha256_file, write_json
from emca_deploy.backends.records import BACKENDS
from emca_deploy.checkpoint_files.opening import list_shards
from emca_deploy.data.sources import open_source
from emca_deploy.machines.fingerprint import fingerprint_of, machine_parts
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.sweep import SweepCell
from emca_deploy.unchanged import stamp_of

__all__ = ["CHARACTERS", "Keys", "digest_of"]

CHARACTERS = 16


def digest_of(inputs: Mapping[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of values that JSON can hold."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:CHARACTERS]


class Keys:
    """What the cells of a plan, and the files made for them, depend on.

    Args:
        plan: the plan.
        remembered: file that keeps the digests of large files, valid while their times and sizes are the same.
        fingerprint: fingerprint of the machine that measures; None is this one.
        versions: versions of the backends there; None is those here.
    """

    def __init__(
        self, plan: Plan, remembered: Path, fingerprint: str | None = None, versions: Mapping[str, str] | None = None
    ) -> None:
        self._plan = plan
        self._digests = _Digests(remembered)
        self._fingerprint = fingerprint
        self._versions: dict[str, str | None] = {}
        if versions is not None:
            self._versions |= {name: versions.get(name) if BACKENDS[name].module else None for name in BACKENDS}

    @cached_property
    def own_fingerprint(self) -> str:
        """The fingerprint of this machine, which exports and calibrates."""
        return fingerprint_of(machine_parts())

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the machine that measures."""
        return self.own_fingerprint if self._fingerprint is None else self._fingerprint

    def save(self) -> None:
        """Write the digests for the next run."""
        self._digests.save()

    def model(self, model: Model) -> dict[str, Any]:
        """Return what identifies a model: the sha256 of its files and its preprocessing, or its name."""
        if model.path is None:
            return {"name": model.name}
        path = model.path
        if model.kind == "onnx":
            files = [path, *(sidecar.path for sidecar in OnnxFile.open(path).sidecars)]
        else:
            files = [path, *list_shards(path)]
        manifest = read_manifest(path, verify=False)
        known = manifest.preprocessing if manifest is not None else None
        digests = [self._digests.get(file, lambda file=file: sha256_file(file)) for file in files]
        return {"sha256": digests, "preprocessing": None if known is None else known.identity()}

    def export(self, cell: SweepCell, precision: str) -> dict[str, Any]:
        """Return what the ONNX file of a cell's model depends on."""
        plan, model = self._plan, self._plan.models[cell.model]
        options = {name: plan.option(name) for name in ("arch", "num_classes", "weights", "prefix")}
        return {
            "model": self.model(model),
            **({} if model.kind == "onnx" else {"options": options, "precision": precision}),
            "preprocessing": asdict(plan.sized(cell)),
            "emca_deploy": __version__,
        }

    def ranges(self, cell: SweepCell) -> dict[str, Any]:
        """Return what the range table of a cell's model depends on."""
        return {"export": self.export(cell, "fp32"), "data": self._data("data"), "samples": self._plan.option("samples")}

    def model_file(self, cell: SweepCell) -> dict[str, Any]:
        """Return what the ONNX file depends on that a cell runs or builds its engine from."""
        if cell.precision != "int8" or self._plan.models[cell.model].precision == "int8":
            return self.export(cell, "fp16" if cell.precision == "fp16" else "fp32")
        machine = {"fingerprint": self.own_fingerprint}  # weights have 7 bits on processors that saturate with 8
        return {"ranges": self.ranges(cell), "backend": cell.backend, "recover": self._plan.option("recover"), **machine}

    def engine(self, cell: SweepCell) -> dict[str, Any]:
        """Return what an engine depends on."""
        own = {name: getattr(cell, name) for name in ("backend", "target", "batch", "threads")}
        return {"model": self.model_file(cell), **own, **self._runtime(cell)}

    def accuracy(self, cell: SweepCell, batch: int | None) -> dict[str, Any]:
        """Return what the accuracy of a cell depends on; `batch` is that of its engine, None where the ONNX file is run."""
        plan = self._plan
        own = {name: getattr(cell, name) for name in ("backend", "target", "precision")}
        options = {name: plan.option(name) for name in ("limit", "label_offset", "class_order")}
        data = {name: self._data(name) for name in ("val", "annotations", "labels", "class_map")}
        return {"model": self.model_file(cell), **own, **self._runtime(cell), "batch": batch, **options, **data}

    def reference(self, cell: SweepCell) -> dict[str, Any]:
        """Return what the answers of the fp32 model depend on."""
        data = {name: self._data(name) for name in ("val", "annotations")}
        other = {} if self.fingerprint == self.own_fingerprint else {"fingerprint": self.fingerprint}
        return {"export": self.export(cell, "fp32"), **data, "limit": self._plan.option("limit"), **other}

    def probes(self) -> dict[str, Any]:
        """Return what the latencies of probes depend on."""
        versions = {name: self._version(name) for name in BACKENDS}
        return {"runtime": versions, "fingerprint": self.fingerprint, "emca_deploy": __version__}

    def cell(self, cell: SweepCell) -> dict[str, Any]:
        """Return what the result of a cell depends on."""
        own = {name: value for name, value in asdict(cell).items() if name != "model"}  # a file may be moved or renamed
        inputs = {"cell": own, "model": self.model_file(cell), "measure": asdict(self._plan.measure)}
        if self._plan.validation is not None:
            inputs["accuracy"] = self.accuracy(cell, None)
        return {**inputs, **self._runtime(cell), "emca_deploy": __version__}

    def _runtime(self, cell: SweepCell) -> dict[str, Any]:
        """Return the versions of a cell's runtime and the machine, as far as they are known before a run."""
        if self._plan.places[cell.target].target.is_remote:
            return {}
        return {"runtime": {cell.backend: self._version(cell.backend)}, "fingerprint": self.fingerprint}

    def _version(self, backend: str) -> str | None:
        if backend not in self._versions:
            module = BACKENDS[backend].module
            self._versions[backend] = None if module is None else installed_version(module)
        return self._versions[backend]

    def _data(self, key: str) -> str | None:
        name = self._plan.option(key)
        if name is None:
            return None
        place = self._plan.file.place(name)
        if key in ("data", "val"):
            return self._digests.get(place, lambda: open_source(place, Preprocessing()).identity())
        return self._digests.get(place, lambda: sha256_file(place))


class _Digests:
    """Digests of files and folders, kept in a file with the times and sizes that they were made of."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed = file, False
        self._now: dict[Path, str] = {}
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def get(self, path: Path, make: Any) -> str:
        """Return the digest of a file or folder, made anew where it has changed."""
        if path not in self._now:
            name, stamp = str(path.absolute()), _stamp(path)
            entry = self._known.get(name)
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
                entry = self._known[name] = [stamp, make()]
                self._changed = True
            self._now[path] = str(entry[1])
        return self._now[path]

    def save(self) -> None:
        """Write the file if a digest is new."""
        if self._changed:
            write_json(self._file, self._known)
            self._changed = False


def _stamp(path: Path) -> str:
    """Return a digest of the names, times and sizes of all files in a folder, or of one file."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for each in files:
        total.update(f"{each}\0{stamp_of(each)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
