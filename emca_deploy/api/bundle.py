"""`bundle`, `inspect` and `verify`: everything that a deployment needs in one file, which cannot change unnoticed."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emca_deploy._progress import Stage, silent
from emca_deploy.api.checking.golden import golden_files
from emca_deploy.artifacts import sha256_file
from emca_deploy.atomic import atomic_write, hidden_folder
from emca_deploy.bundles.bill import bill_of
from emca_deploy.bundles.canonical_zip import write_archive
from emca_deploy.bundles.code import LANGUAGES, programs
from emca_deploy.bundles.contents import Contents, collect
from emca_deploy.bundles.notices import CHECKPOINT_LICENCE, notices
from emca_deploy.bundles.opened import SUMS, checksums, open_bundle
from emca_deploy.bundles.package import PACKAGE, PackageFacts, package_json
from emca_deploy.data.files import read_text
from emca_deploy.data.label_files import names_in_order, read_class_map
from emca_deploy.errors import InputError, OutputError, UnknownNameError
from emca_deploy.reporting.card import card_of
from emca_deploy.results.bundle import BundleReport, BundleVariant

__all__ = ["BundleRequest", "bundle", "classes_of", "inspect_bundle", "licence_of", "notes_of"]

ARCHIVE = ".emca"
CARD, BILL, LABELS = "MODEL_CARD.md", "sbom.cdx.json", "labels.txt"


@dataclass(frozen=True)
class BundleRequest:
    """Options of a bundle.

    Attributes:
        sources: folders of deployments, or artifacts with their manifests: ONNX models and engines.
        output: the bundle: an archive where it ends with ".emca", else a folder, which must not exist.
        name: name of the model; None takes that of the deployment or the architecture.
        labels: file with the names of the classes, as `validate --class-map` takes it.
        licence: licence of the checkpoint: a name such as "Apache-2.0", or a text file.
        code: languages of the programs that classify images with it: "python" and "cpp".
    """

    sources: tuple[Path, ...]
    output: Path
    name: str | None = None
    labels: Path | None = None
    licence: str | None = None
    code: tuple[str, ...] = ()


def bundle(request: BundleRequest, stage: Stage = silent) -> BundleReport:
    """Write a bundle. The same inputs make the same bytes.

    Raises:
        BundleError: the artifacts do not belong together, or cannot be in a bundle.
        InputError: a file is missing or cannot be read.
        OutputError: the bundle cannot be written.
    """
    for language in request.code:
        if language not in LANGUAGES:
            raise UnknownNameError.of("--code", language, LANGUAGES, f"languages: {', '.join(LANGUAGES)}")
    with stage("reading artifacts"):
        contents = collect(request.sources)
    classes = classes_of(request.labels, contents.num_classes)
    licence, text = licence_of(request.licence)
    name = request.name or contents.title
    facts = PackageFacts(
        name, tuple(contents.variants), contents.preprocessing, classes, licence, tuple(notes_of(contents, licence))
    )
    written = {
        PACKAGE: _json(package_json(facts)),
        BILL: _json(bill_of(contents, name, licence)),
        CARD: card_of(name, _sizes(contents), facts.preprocessing, licence, contents.deployment),
    }
    if classes:
        written[LABELS] = "".join(f"{each}\n" for each in classes)
    if request.code:
        written |= programs(contents, classes, request.code)
    written |= notices(contents.files, written, text)
    with stage("making golden images"):
        golden = golden_files(contents)
    with stage("writing the bundle"), hidden_folder(request.output.absolute().parent) as place:
        return _write(request.output, _with_texts(contents.files, {**written, **golden}, place), place)


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _sizes(contents: Contents) -> tuple[tuple[BundleVariant, float], ...]:
    return tuple((variant, contents.files[variant.file].stat().st_size / 2**20) for variant in contents.variants)


def notes_of(contents: Contents, licence: str | None) -> Iterator[str]:
    """Yield what the user of these artifacts should know."""
    preprocessing = contents.preprocessing
    if preprocessing is not None and preprocessing.assumed:
        yield f"nobody stated parts of the preprocessing, which are assumed: {', '.join(preprocessing.assumed)}"
    if licence is None:
        yield "the licence of the checkpoint is not stated; set --licence"


def classes_of(path: Path | None, number: int | None) -> tuple[str, ...]:
    """Return the names of the classes, in order; none without a file.

    Raises:
        InputError: the file cannot be read, or does not fit the number of classes.
    """
    return () if path is None else tuple(names_in_order(read_class_map(path), number, f"{path}: for this network"))


def licence_of(given: str | None) -> tuple[str | None, str]:
    """Return the name of a licence, and its text where a file was named."""
    if given is None or not Path(given).is_file():
        return given, ""
    return f"see {CHECKPOINT_LICENCE}", read_text(Path(given), 1, "the text of a licence", InputError)


def _with_texts(files: Mapping[str, Path], texts: Mapping[str, str | bytes], place: Path) -> dict[str, Path]:
    """Return all files by name: `files`, these texts, which are written in `place`, and the list of their checksums."""
    found = dict(files)
    for name, text in texts.items():
        found[name] = place / name
        found[name].parent.mkdir(parents=True, exist_ok=True)
        found[name].write_bytes(text if isinstance(text, bytes) else text.encode())
    sums = place / SUMS
    sums.write_bytes(checksums({name: sha256_file(path) for name, path in found.items()}))
    return {**found, SUMS: sums}


def _write(output: Path, files: Mapping[str, Path], place: Path) -> BundleReport:
    """Write the bundle, and return what it holds; one that does not fit its checksums is not left there."""
    if output.suffix.lower() == ARCHIVE:
        with atomic_write(output) as temporary:
            with temporary.open("wb") as stream:
                write_archive(stream, files)
            return replace(inspect_bundle(temporary), path=output)
    if output.exists():
        raise OutputError(f"{output}: exists", f"name a new folder, or a file that ends with {ARCHIVE}")
    folder = place / "bundle"
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    report = inspect_bundle(folder)
    folder.rename(output)
    return replace(report, path=output)


def inspect_bundle(path: Path | str) -> BundleReport:
    """Return what a bundle holds, after comparing every byte with its checksums. Nothing of it is loaded or run.

    Raises:
        BundleError: a byte differs, a file is missing or there is one too many, or it is no bundle.
        InputError: it does not exist or cannot be read.
    """
    return open_bundle(Path(path)).report()
