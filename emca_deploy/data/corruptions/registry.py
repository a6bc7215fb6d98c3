"""The kinds of corruptions, and how an option names them.

Parameters are the authors' for 224 pixels, except where their strengths are not in order: glass, snow, frost and elastic, and the
weakest defocus. `filters.scale_of` names the paper.
"""

from emca_deploy.data.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from emca_deploy.data.corruptions.camera import banding, low_light, nearest_resize, strong_jpeg, white_balance
from emca_deploy.data.corruptions.corruption import Corruption
from emca_deploy.data.corruptions.digital import contrast, elastic, jpeg, pixelate
from emca_deploy.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from emca_deploy.data.corruptions.weather import brightness, fog, frost, snow
from emca_deploy.errors import UnknownNameError

__all__ = ["CORRUPTIONS", "chosen_corruptions", "corruption_names"]

_KINDS = (
    Corruption("gaussian-noise", "noise", gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,))),
    Corruption("shot-noise", "noise", shot_noise, ((60,), (25,), (12,), (5,), (3,))),
    Corruption("impulse-noise", "noise", impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))),
    Corruption("defocus-blur", "blur", defocus_blur, ((2,), (4,), (6,), (8,), (10,))),
    Corruption("glass-blur", "blur", glass_blur, ((0.7, 2, 1), (0.9, 3, 1), (1, 3, 2), (1.1, 4, 2), (1.5, 5, 2))),
    Corruption("motion-blur", "blur", motion_blur, ((3,), (5,), (8,), (12,), (15,))),
    Corruption("zoom-blur", "blur", zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    Corruption(
        "snow",
        "weather",
        snow,
        ((0.08, 3, 4, 0.8), (0.12, 3, 4, 0.75), (0.16, 4, 8, 0.7), (0.2, 4.5, 8, 0.65), (0.25, 4.5, 12, 0.55)),
    ),
    Corruption("frost", "weather", frost, ((1, 0.4), (0.85, 0.55), (0.75, 0.65), (0.65, 0.75), (0.6, 0.85))),
    Corruption("fog", "weather", fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    Corruption("brightness", "weather", brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))),
    Corruption("contrast", "digital", contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    Corruption("elastic", "digital", elastic, ((0.005,), (0.01,), (0.015,), (0.02,), (0.03,))),
    Corruption("pixelate", "digital", pixelate, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))),
    Corruption("jpeg", "digital", jpeg, ((25,), (18,), (15,), (10,), (7,))),
    Corruption("low-light", "camera", low_light, ((0.5,), (0.25,), (0.12,), (0.06,), (0.03,))),
    Corruption("white-balance", "camera", white_balance, ((0.15,), (0.3,), (0.5,), (0.75,), (1,))),
    Corruption("banding", "camera", banding, ((0.1,), (0.2,), (0.35,), (0.5,), (0.7,))),
    Corruption("nearest-resize", "camera", nearest_resize, ((2,), (3.5,), (5,), (7,), (9,))),
    Corruption("strong-jpeg", "camera", strong_jpeg, ((25,), (18,), (12,), (8,), (5,))),
)

CORRUPTIONS = {kind.name: kind for kind in _KINDS}
"""All kinds by name."""

_SETS = {
    "all": tuple(CORRUPTIONS),
    "imagenet-c": tuple(kind.name for kind in _KINDS if kind.group != "camera"),
    "camera": tuple(kind.name for kind in _KINDS if kind.group == "camera"),
}


def corruption_names() -> tuple[str, ...]:
    """Return the names of all sets and kinds."""
    return (*_SETS, *CORRUPTIONS)


def chosen_corruptions(text: str) -> tuple[Corruption, ...]:
    """Return the kinds that a text names: names of kinds or of sets ("all", "imagenet-c", "camera"), joined by commas.

    Raises:
        UnknownNameError: a name is unknown.
    """
    names: list[str] = []
    for part in text.split(","):
        name = part.strip()
        if name not in _SETS and name not in CORRUPTIONS:
            remedy = f"name {', '.join(_SETS)}, or kinds: {', '.join(CORRUPTIONS)}"
            raise UnknownNameError.of("corruption", name, corruption_names(), remedy)
        names += _SETS.get(name, (name,))
    return tuple(CORRUPTIONS[name] for name in dict.fromkeys(names))
