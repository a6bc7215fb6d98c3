"""Calibrate PP-OCR's text direction classifier and compare both CPU backends with fp32.

    pip download rapidocr-onnxruntime --no-deps -d /tmp/rapid && unzip /tmp/rapid/*.whl -d /tmp/rapid
    python benchmarks/text_classifier.py /tmp/rapid/rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx

The pictures are lines of words, or with --text characters random characters, in Pillow's own font, upright or turned by 180
degrees.
"""

import argparse
import json
import shutil
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 48, 192
PREPROCESSING = ("--image-size", "48x192", "--resize", "squash", "--channels", "bgr", "--mean", "0.5", "--std", "0.5")
WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "and", "then", "it", "runs", "through", "every",
    "garden", "gate", "while", "people", "watch", "from", "their", "windows", "with", "great", "surprise", "Invoice",
    "Total", "Amount", "Street", "Number", "Please", "Return", "Company", "Address", "Telephone", "Order", "Payment",
    "January", "February", "March", "August", "September", "Monday", "Friday", "Receipt", "Thank", "You", "Welcome",
    "Exit", "Entrance", "Open", "Closed", "Market", "Hotel", "Station",
]  # fmt: skip


def words(rng: np.random.Generator) -> Image.Image:
    """Return a line of words that fills the height, like a text detector's crop."""
    text = " ".join(rng.choice(WORDS, rng.integers(1, 4)))
    text = text.upper() if rng.random() < 0.3 else text
    if rng.random() < 0.3:
        text += f" {rng.integers(0, 9999)}"
    back, ink = rng.integers(150, 256, 3), rng.integers(0, 100, 3)
    if rng.random() < 0.4:
        back, ink = ink, back
    font = ImageFont.load_default(48)
    left, top, right, bottom = font.getbbox(text)
    pad = int(rng.integers(2, 8))
    line = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), tuple(map(int, back)))
    ImageDraw.Draw(line).text((pad - left, pad - top), text, font=font, fill=tuple(map(int, ink)))
    line = line.resize((min(WIDTH, max(1, round(line.width * HEIGHT / line.height))), HEIGHT), Image.Resampling.BILINEAR)
    noisy = np.asarray(line) + rng.normal(0, rng.uniform(0, 10), (HEIGHT, line.width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def characters(rng: np.random.Generator) -> Image.Image:
    """Return a picture with random letters and digits at a random place."""
    text = "".join(rng.choice(list(string.ascii_letters + string.digits), int(rng.integers(5, 12))))
    picture = Image.new("RGB", (WIDTH, HEIGHT), tuple(map(int, rng.integers(180, 256, 3))))
    place = (int(rng.integers(2, 20)), int(rng.integers(0, 8)))
    font = ImageFont.load_default(int(rng.integers(22, 38)))
    ImageDraw.Draw(picture).text(place, text, font=font, fill=tuple(map(int, rng.integers(0, 90, 3))))
    return picture


def save_pictures(folder: Path, count: int, seed: int, kind: str) -> None:
    """Write pictures alternately: upright into "0", turned into "180"."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        picture = {"words": words, "characters": characters}[kind](rng)
        angle = ("0", "180")[index % 2]
        picture = picture.rotate(180) if angle == "180" else picture
        whole = Image.new("RGB", (WIDTH, HEIGHT), (127, 127, 127))
        whole.paste(picture, (0, 0))
        (folder / angle).mkdir(parents=True, exist_ok=True)
        whole.save(folder / angle / f"{index:05}.png")


def emca_deploy(*arguments: object) -> dict[str, object]:
    """Run a command line of the toolkit and return its JSON document."""
    command = [sys.executable, "-m", "emca_deploy", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", choices=("words", "characters"), default="words")
    parser.add_argument("--calibration", type=int, default=300)
    parser.add_argument("--validation", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(shutil.copy(options.model, folder / "cls.onnx"))
        save_pictures(folder / "calibration", options.calibration, 1, options.text)
        save_pictures(folder / "validation", options.validation, 2, options.text)
        print("| backend | MACs in INT8 % | fp32 top-1 | INT8 top-1 | the same class % | SQNR dB |\n|---|---|---|---|---|---|")
        for backend in ("onnxruntime", "openvino"):
            output = folder / f"cls.{backend}.onnx"
            made = emca_deploy(
                "calibrate", model, "--data", folder / "calibration", "--backend", backend, "-o", output, *PREPROCESSING
            )
            data = ("--data", folder / "validation", "--backend", backend, "--reference", model)
            found = emca_deploy("validate", output, *data)
            against = found["reference"]
            print(
                f"| {backend} | {made['coverage']['int8_macs_percent']} | {against['top1']:.2f} | {found['top1']:.2f} | "
                f"{against['agreement']:.2f} | {against['sqnr_db']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
