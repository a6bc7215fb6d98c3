"""The file of named machines as text; reading it needs no target's code, so a shell's completion is fast."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from emca_deploy.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEVICES_VARIABLE", "devices_file", "machine_names", "read_devices"]

DEVICES_VARIABLE = "EMCA_DEPLOY_DEVICES"


def devices_file() -> Path:
    """Return the file of named machines, which may not exist.

    Raises:
        InputError: there is no home folder.
    """
    if named := os.environ.get(DEVICES_VARIABLE):
        return Path(named)
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    try:
        folder = base if base.is_absolute() else Path.home() / ".config"  # the XDG standard ignores a relative one
    except RuntimeError as exc:
        raise InputError("the file of devices is unknown: there is no home folder", f"set {DEVICES_VARIABLE} to a file") from exc
    return folder / "emca-deploy" / "devices.toml"


def read_devices(path: Path) -> str:
    """Return the text of the file; "" without one.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text", "save it as UTF-8") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise InputError(
            f"{path}: cannot be read: {reason}", f"check its permissions, or name another with {DEVICES_VARIABLE}"
        ) from exc


def machine_names() -> Iterable[str]:
    """Return the names in the file, in its order; none where it cannot be read."""
    with suppress(InputError, ValueError, RecursionError):
        return tomllib.loads(read_devices(devices_file()))
    return ()
