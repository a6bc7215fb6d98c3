"""Reads the tensors of a checkpoint file without running anything that the file holds."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._optional import import_optional
from emca_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_arch_hint", "read_state_dict"]

CONTAINERS = ("state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "module")
"""Where training scripts put the weights, the plain ones before their moving averages."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, wrappers and torch.compile put in front of every key."""

MAX_NESTING = 8
SAVE_AGAIN = "where it was trained, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
COPY_AGAIN = "copy or download it again, and compare sizes or checksums"


def read_state_dict(path: Path) -> dict[str, "Tensor"]:
    """Return a checkpoint's tensors by key, on the CPU; floating ones as float32.

    Containers such as {"state_dict": ...} are opened and prefixes such as "module." removed. The file's kind is told from its
    content: what torch.save writes (zip or legacy), or safetensors.

    Raises:
        CheckpointError: the file cannot be read, is damaged, holds pickled objects besides tensors (they are not run), holds no
            tensors, or holds NaN or infinity.
        MissingError: torch or safetensors is not installed.
    """
    kind = _sniff(path)
    loaded = _read_safetensors(path) if kind == "safetensors" else _read_torch(path, kind)
    tensors = _tensors(_unwrap(loaded), path)
    stripped: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = _strip(key)
        if name in stripped:
            raise CheckpointError(f"{path}: holds '{name}' twice, once behind a prefix", SAVE_AGAIN)
        stripped[name] = _as_float32(name, tensor, path)
    stripped.pop("n_averaged", None)  # the step count of torch.optim.swa_utils.AveragedModel
    return stripped


def read_arch_hint(path: Path) -> str | None:
    """Return what a safetensors file's metadata calls its architecture, or None."""
    try:
        with import_optional("safetensors").safe_open(str(path), framework="numpy") as file:
            arch: str | None = (file.metadata() or {}).get("arch")
    except Exception:  # a hint only: whatever is wrong with the file has been said, or will be, by reading it
        return None
    return arch


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder", "name the checkpoint file inside it")
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such file", "check the path") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    if not head:
        raise CheckpointError(f"{path}: is empty", COPY_AGAIN)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):  # the opcode every pickle since protocol 2 starts with
        return "legacy"
    raise CheckpointError(f"{path}: is neither a PyTorch nor a safetensors checkpoint", "give a .pth, .pt or .safetensors file")


def _read_safetensors(path: Path) -> Any:
    load_file = import_optional("safetensors.torch").load_file
    try:
        return load_file(str(path))
    except Exception as exc:
        raise CheckpointError(f"{path}: is damaged or no safetensors file: {exc}", COPY_AGAIN) from exc


def _read_torch(path: Path, kind: str) -> Any:
    torch = import_optional("torch")
    if kind == "zip":
        _check_archive(path)
    # Training scripts often save their options too; a Namespace is only a bag of plain values.
    from argparse import Namespace

    try:
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # a damaged pickle can raise anything
        raise _load_error(path, exc) from exc


def _check_archive(path: Path) -> None:
    try:
        whole = zipfile.is_zipfile(path)  # the directory is at the end of the file
        if whole:
            with zipfile.ZipFile(path) as archive:
                files = {name.rpartition("/")[2] for name in archive.namelist()}
    except Exception as exc:  # zipfile raises half a dozen kinds for damaged archives
        raise CheckpointError(f"{path}: is damaged: {exc}", COPY_AGAIN) from exc
    if not whole:
        raise CheckpointError(f"{path}: is truncated", COPY_AGAIN)
    if "constants.pkl" in files:
        raise CheckpointError(f"{path}: is a TorchScript archive, not a checkpoint", SAVE_AGAIN)
    if "data.pkl" not in files:
        raise CheckpointError(f"{path}: is a zip archive but no checkpoint", "give a .pth, .pt or .safetensors file")


def _load_error(path: Path, exc: Exception) -> CheckpointError:
    foreign = re.search(r"GLOBAL ([\w.]+)", str(exc))
    if foreign:
        what = f"holds a pickled {foreign[1]} and not only tensors; it was not loaded, as that can run code"
        return CheckpointError(f"{path}: {what}", SAVE_AGAIN)
    if isinstance(exc, EOFError) or "EOF" in str(exc):
        return CheckpointError(f"{path}: is truncated", COPY_AGAIN)
    reason = str(exc).strip().splitlines()
    detail = reason[0][:120] if reason and "Weights only load failed" not in reason[0] else "its pickle cannot be read"
    return CheckpointError(f"{path}: is damaged or no checkpoint: {detail}", COPY_AGAIN)


def _has_tensors(value: Any) -> bool:
    from torch import Tensor

    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _unwrap(loaded: Any) -> Any:
    for _ in range(MAX_NESTING):  # a crafted file can hold a dictionary that contains itself
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in CONTAINERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None and not _has_tensors(loaded):
            candidates = [value for value in loaded.values() if _has_tensors(value)]
            inner = candidates[0] if len(candidates) == 1 else None
        if inner is None:
            break
        loaded = inner
    return loaded


def _tensors(loaded: Any, path: Path) -> dict[str, "Tensor"]:
    from torch import Tensor

    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of tensors", SAVE_AGAIN)
    tensors = {str(key): value.detach() for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(str(key) for key in list(loaded)[:5]) or "nothing at all"
        raise CheckpointError(f"{path}: holds no tensors, only: {names}", SAVE_AGAIN)
    return tensors


def _strip(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _as_float32(name: str, tensor: "Tensor", path: Path) -> "Tensor":
    if tensor.is_quantized or tensor.is_complex() or tensor.is_sparse:
        raise CheckpointError(f"{path}: '{name}' is not an ordinary tensor ({tensor.dtype}, {tensor.layout})", SAVE_AGAIN)
    if tensor.is_meta or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: '{name}' has a shape but not its values", SAVE_AGAIN)
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float().contiguous()
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{path}: '{name}' holds NaN or infinity", "use a checkpoint from before the training diverged")
    return tensor
