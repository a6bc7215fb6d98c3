"""Answers of `run` as lines of text."""

from emca_deploy.reporting.formats import plain
from emca_deploy.results.run import FoundObject, ImageAnswer, RankedClass

__all__ = ["line_of"]


def line_of(answer: ImageAnswer) -> str:
    """Return one line: the image, then its classes with their probabilities, or its objects with their scores and boxes."""
    found = [f"{_name(one)} {100 * one.probability:.1f}%" for one in answer.classes]
    found += [f"{_name(one)} {one.score:.2f} [{', '.join(f'{side:.0f}' for side in one.box)}]" for one in answer.objects]
    return f"{plain(answer.image)}: {', '.join(found) or 'nothing'}"


def _name(found: RankedClass | FoundObject) -> str:
    return plain(found.name) if found.name is not None else f"class {found.index}"
