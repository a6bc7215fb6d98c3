"""A data set as one file, so that it is sent once and known by its hash."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from emca_deploy.data.files import FolderStore, printable
from emca_deploy.data.layout import find_images
from emca_deploy.errors import DataError
from emca_deploy.remote.protocol import ZIP_DATE

__all__ = ["packed"]

_TOP = "data"
"""A folder around everything: a zip's only top folder is a wrapping, and never the only class."""


@contextmanager
def packed(source: Path) -> Iterator[Path]:
    """Yield a data set as a file: a .zip or .npz as it is, a folder as a .zip of its images, which is the same every time.

    Raises:
        DataError: there is no data set there.
    """
    if not source.is_dir():
        if not source.is_file() or source.suffix.lower() not in (".zip", ".npz"):
            raise DataError(f"{printable(str(source))}: not a data set", "name a folder of images, a .zip of one, or an .npz")
        yield source
        return
    store = FolderStore(source)
    layout = find_images(store, may_be_wrapped=False)
    with TemporaryDirectory(prefix="emca-") as folder:
        packed_file = Path(folder) / "images.zip"
        with zipfile.ZipFile(packed_file, "w", zipfile.ZIP_STORED) as archive:
            for name in layout.names:
                try:
                    name.encode()
                except UnicodeEncodeError as exc:
                    raise DataError(f"{store.describe(layout.root + name)}: its name is not UTF-8", "rename it") from exc
                with store.open(layout.root + name) as stream:
                    archive.writestr(zipfile.ZipInfo(f"{_TOP}/{name}", ZIP_DATE), stream.read())
        yield packed_file
