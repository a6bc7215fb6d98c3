"""How calibration images were drawn, on the terminal."""

from emca_deploy.results.drawing import Drawing

__all__ = ["drawing_line"]


def drawing_line(drawing: Drawing) -> str:
    """Return in one line how many images were looked at and used, and why no more."""
    if not drawing.left_out:
        return f"images: all {drawing.used} were used; there are too few to draw from"
    drawn = f"images: {drawing.used} of {drawing.looked_at} were drawn for their ranges"
    if drawing.clipped_db is None:
        return f"{drawn}; more were not to be looked at"
    return f"{drawn}; wider ranges, from more images, would gain {drawing.clipped_db:.2f} dB at most"
