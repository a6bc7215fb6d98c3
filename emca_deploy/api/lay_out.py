"""`bundle --layout`: the folder that a model server loads."""

import shutil
from pathlib import Path

from emca_deploy._progress import Stage, silent
from emca_deploy.api.bundle import BundleRequest, classes_of, licence_of, notes_of
from emca_deploy.artifacts import sha256_file
from emca_deploy.atomic import hidden_folder
from emca_deploy.bundles.canonical_zip import check_name
from emca_deploy.bundles.contents import collect
from emca_deploy.bundles.layouts.registry import LAYOUTS
from emca_deploy.bundles.layouts.served import served_model
from emca_deploy.bundles.notices import CHECKPOINT_LICENCE
from emca_deploy.errors import InputError, OutputError, UnknownNameError
from emca_deploy.results.bundle import BundleFile, LayoutReport

__all__ = ["lay_out"]


def lay_out(request: BundleRequest, layout: str, stage: Stage = silent) -> LayoutReport:
    """Write the folder that a server loads, with the fastest model that it runs. The same inputs make the same bytes.

    Raises:
        UnknownNameError: there is no such layout.
        BundleError: the server runs none of the artifacts.
        InputError: a file is missing or cannot be read, or an option does not fit.
        OutputError: the folder exists or cannot be written.
    """
    chosen = LAYOUTS.get(layout)
    if chosen is None:
        raise UnknownNameError.of("--layout", layout, LAYOUTS, f"layouts: {', '.join(LAYOUTS)}")
    if request.code:
        raise InputError("--code and --layout exclude each other", "write the programs into a bundle, without --layout")
    if request.output.exists():
        raise OutputError(f"{request.output}: exists", "name a new folder")
    with stage("reading artifacts"):
        contents = collect(request.sources)
        licence, text = licence_of(request.licence)
        classes = classes_of(request.labels, contents.num_classes)
        served = served_model(contents, chosen, request.name or contents.title, classes, licence)
        files = {check_name(name): file for name, file in chosen.files(served).items()}
    if text:
        files[CHECKPOINT_LICENCE] = text
    with stage("writing the folder"), hidden_folder(request.output.absolute().parent) as place:
        folder = place / "layout"
        for name, file in files.items():
            _put(folder / name, file)
        found = tuple(_described(folder, name) for name in sorted(files))
        folder.rename(request.output)
    notes = tuple(notes_of(contents, licence))
    return LayoutReport(request.output, layout, served.name, served.variant, found, notes)


def _put(place: Path, file: str | Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file, str):
        place.write_text(file, encoding="utf-8")
    else:
        shutil.copyfile(file, place)


def _described(folder: Path, name: str) -> BundleFile:
    path = folder / name
    return BundleFile(name, sha256_file(path), path.stat().st_size)
