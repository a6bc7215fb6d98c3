"""Bundles that exist: a folder or an archive, whose every byte is compared before anything of it is used."""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.artifacts import remember_sha256, sha256_file
from emca_deploy.bundles.canonical_zip import MOST_FILES, Stored, check_name, damaged, read_archive
from emca_deploy.bundles.package import PACKAGE, package_of
from emca_deploy.errors import InputError
from emca_deploy.results.bundle import BundleFile, BundleReport

__all__ = ["SUMS", "OpenedBundle", "checksums", "open_bundle"]

SUMS = "SHA256SUMS"
"""List of the checksums of all other files; `sha256sum --check SHA256SUMS` compares an unpacked bundle with it."""

_PIECE = 1 << 20

LARGEST_TEXT = 1 << 26
"""Largest JSON or text file that is read from a bundle, in bytes."""


def checksums(digests: Mapping[str, str]) -> bytes:
    """Return the list of checksums of files by name, as `sha256sum` writes it."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle that is as it was when it was made.

    Attributes:
        path: Folder or archive.
        files: The files by name, but the list of checksums.
        digest: sha256 of the list of checksums.
        sha256: sha256 of the archive; None for a folder.
    """

    path: Path
    files: Mapping[str, Stored]
    digest: str
    sha256: str | None

    def text(self, name: str) -> str:
        """Return a text file.

        Raises:
            BundleError: it is missing, too large or not text.
            InputError: it cannot be read.
        """
        if name not in self.files:
            raise damaged(self.path, f"{name} is missing")
        try:
            return b"".join(_small(self.path, name, self.files[name])).decode()
        except UnicodeDecodeError as exc:
            raise damaged(self.path, f"{name} is not text") from exc

    def copy(self, folder: str, place: Path) -> None:
        """Copy the files of one of its folders to `place`, and compare every byte again: the copies are what was verified.

        Raises:
            BundleError: a file has changed since the bundle was opened.
            InputError: a file cannot be read.
        """
        for name, file in self.files.items():
            if not name.startswith(f"{folder}/"):
                continue
            target = place / name[len(folder) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                stream.writelines(_compared(self.path, name, file))
            remember_sha256(target, file.sha256)

    def report(self) -> BundleReport:
        """Return what the bundle holds.

        Raises:
            BundleError: its manifest is none of a bundle, or names a file that is missing.
        """
        try:
            found = package_of(json.loads(self.text(PACKAGE)), self.path)
        except (ValueError, RecursionError) as exc:
            raise damaged(self.path, f"{PACKAGE} is not JSON: {exc}") from exc
        for variant in found.variants:
            check_name(variant.name)  # it becomes the name of a folder
            for file in (variant.file, f"{variant.file}.manifest.json"):
                if file not in self.files:
                    raise damaged(self.path, f"{file} is missing")
        return BundleReport(
            path=self.path,
            digest=self.digest,
            sha256=self.sha256,
            name=found.name,
            variants=found.variants,
            preprocessing=found.preprocessing,
            classes=found.classes,
            licence=found.licence,
            files=tuple(BundleFile(name, each.sha256, each.size) for name, each in sorted(self.files.items())),
            emca_deploy=found.emca_deploy,
            notes=found.notes,
        )


def open_bundle(path: Path) -> OpenedBundle:
    """Return the bundle in a folder or an archive, after comparing every byte.

    Raises:
        BundleError: a byte differs, a file is missing or there is one too many, or it is no bundle.
        InputError: it does not exist or cannot be read.
    """
    if path.is_dir():
        files, whole = _in_folder(path), None
    elif path.is_file():
        archive = read_archive(path)
        files, whole = archive.files, archive.sha256
    else:
        raise InputError(f"{path}: no such file or folder", "name a bundle: an .emca file, or its unpacked folder")
    if SUMS not in files:
        raise damaged(path, f"it has no {SUMS}")
    sums = files.pop(SUMS)
    digests = {name: each.sha256 for name, each in files.items()}
    if hashlib.sha256(checksums(digests)).hexdigest() != sums.sha256:
        raise damaged(path, _difference(digests, b"".join(_small(path, SUMS, sums))))
    return OpenedBundle(path, files, sums.sha256, whole)


def _small(path: Path, name: str, file: Stored) -> Iterator[bytes]:
    """Yield the bytes of a file that must be small, as `_compared` does."""
    if file.size > LARGEST_TEXT:
        raise damaged(path, f"{name} is too large")
    return _compared(path, name, file)


def _compared(path: Path, name: str, file: Stored) -> Iterator[bytes]:
    """Yield the bytes of a file of a bundle, in pieces; the last step compares them with its sha256.

    Raises:
        BundleError: they have changed since the bundle was opened.
        InputError: they cannot be read.
    """
    digest, left = hashlib.sha256(), file.size
    try:
        with (path / name if path.is_dir() else path).open("rb") as stream:
            stream.seek(file.offset)
            while left and (piece := stream.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
                yield piece
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    if digest.hexdigest() != file.sha256:
        raise damaged(path, f"{name} has changed while it was read")


def _in_folder(path: Path) -> dict[str, Stored]:
    """Return the files of a folder by name; links and special files are refused."""
    found = dict[str, Stored]()
    for place in sorted(path.rglob("*")):
        name, mode = place.relative_to(path).as_posix(), place.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise damaged(path, f"{name} is no plain file")
        if len(found) >= MOST_FILES:
            raise damaged(path, "it has too many files")
        found[check_name(name)] = Stored(sha256_file(place), 0, place.stat().st_size)
    return found


def _difference(digests: Mapping[str, str], sums: bytes) -> str:
    """Return which file the list of checksums disagrees with."""
    listed = dict(line.split("  ", 1)[::-1] for line in sums.decode(errors="replace").splitlines() if "  " in line)
    for name in sorted({*listed, *digests}):
        if listed.get(name) != digests.get(name):
            what = "is missing" if name not in digests else "is not in its list" if name not in listed else "has changed"
            return f"{name} {what}"
    return f"{SUMS} has changed"
