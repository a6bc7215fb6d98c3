"""`check-preprocess` with a real command: a Python program of Pillow, numpy and OpenCV that makes one mistake, or two."""

import json
import sys

import numpy as np
import pytest

from emca_deploy.cli import run

PROGRAM = """
import sys
import numpy as np
from PIL import Image, ImageOps

SIDE, RESIZED = 32, 40
mistakes = sys.argv[3:]
image = Image.open(sys.argv[1])
image = (ImageOps.exif_transpose(image) if "EXIF" in mistakes else image).convert("RGB")
if "aspect" in mistakes:
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
else:
    short, (wide, tall) = SIDE if "crop size" in mistakes else RESIZED, image.size
    size = (short, int(short * tall / wide)) if wide <= tall else (int(short * wide / tall), short)
    if "antialiasing" in mistakes:
        import cv2
        image = Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LINEAR))
    else:
        image = image.resize(size, Image.Resampling.BICUBIC if "resize filter" in mistakes else Image.Resampling.BILINEAR)
    half = (lambda odd: odd // 2) if "crop rounding" in mistakes else (lambda odd: round(odd / 2))
    left, top = half(size[0] - SIDE), half(size[1] - SIDE)
    image = image.crop((left, top, left + SIDE, top + SIDE))
values = np.asarray(image).astype(np.float32)
values = values[:, :, ::-1] if "channel order" in mistakes else values
values = values if "scale" in mistakes else values / 255
values = values if "mean" in mistakes else values - [0.485, 0.456, 0.406]
values = values if "std" in mistakes else values / [0.229, 0.224, 0.225]
values = values if "layout" in mistakes else values.transpose(2, 0, 1)
np.save(sys.argv[2], values[None].astype(np.float64 if "dtype" in mistakes else np.float32))
"""
SINGLE = [
    "channel order", "scale", "mean", "std", "resize filter", "antialiasing", "crop size", "crop rounding", "aspect", "EXIF",
    "layout", "dtype",
]  # fmt: skip
PAIRS = [("channel order", "std"), ("antialiasing", "scale"), ("EXIF", "mean"), ("aspect", "layout"), ("mean", "std")]


@pytest.fixture
def program(tmp_path):
    (tmp_path / "own.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "own.py"), "{image}", "{out.npy}"]


@pytest.fixture
def check(program, model, capsys):
    """Return a function that checks the program with some mistakes, and returns the exit code and the document."""

    def made(*mistakes, options=()):
        code = run(["check-preprocess", str(model), *map(str, options), "--json", "--", *program, *mistakes])
        return code, json.loads(capsys.readouterr().out)

    return made


def steps(document):
    return [step["step"] for step in document["wrong"]]


@pytest.mark.slow
def test_the_right_program_is_right(check):
    code, found = check()
    assert (code, found["right"], found["explained"], found["wrong"]) == (0, True, True, [])
    assert found["images"] == 20
    assert found["largest_steps"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mistake", SINGLE)
def test_each_mistake_of_a_program_is_named(check, mistake):
    code, found = check(mistake)
    assert (code, found["right"], found["explained"], steps(found)) == (4, False, True, [mistake])


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_are_named(check, pair):
    code, found = check(*pair)
    assert (code, found["explained"], set(steps(found))) == (4, True, set(pair))


def test_a_mistake_of_a_program_is_named_with_its_cost(check, labelled_images):
    code, found = check("scale", options=["--data", labelled_images])
    assert (code, steps(found)) == (4, ["scale"])
    assert found["wrong"][0]["found"] == "pixels not divided"
    assert found["cost"]["images"] == 12
    assert 0 <= found["cost"]["top1_wrong"] <= 100


@pytest.fixture
def refuses(model, refused):
    def check(script, *options):
        command = [sys.executable, "-c", script, "{image}", "{out.npy}"]
        return refused("check-preprocess", model, *options, "--", *command)

    return check


def test_a_program_that_fails_or_writes_no_array_is_refused(refuses):
    assert "no such library" in refuses("raise SystemExit('no such library')")
    assert "wrote no {out.npy}" in refuses("pass")
    assert "is no .npy file" in refuses("import sys; open(sys.argv[2], 'w').write('x')")


def test_a_program_that_hangs_is_stopped(refuses):
    assert "longer than 0.5 s" in refuses("import time; time.sleep(600)", "--time-limit", "0.5")


def test_pickles_are_not_read(refuses, tmp_path):
    script = f"""
import pickle, sys, numpy as np
class Harm:
    def __reduce__(self):
        return open, ({str(tmp_path / "harm")!r}, "w")
np.save(sys.argv[2], np.array([Harm()], object), allow_pickle=True)
"""
    assert "is no .npy file" in refuses(script)
    assert not (tmp_path / "harm").exists()


def test_another_size_is_named(model, capsys):
    script = "import sys, numpy as np; np.save(sys.argv[2], np.zeros((1, 3, 40, 40), np.float32))"
    code = run(["check-preprocess", str(model), "--json", "--", sys.executable, "-c", script, "{image}", "{out.npy}"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["explained"], found["mean_steps"]) == (4, False, None)
    assert found["wrong"] == [{"step": "crop size", "found": "gave 40x40", "wanted": "32x32"}]


def test_other_numbers_are_none_of_the_known_mistakes(model, capsys):
    script = "import sys, numpy as np; np.save(sys.argv[2], np.full((1, 3, 32, 32), 7, np.float32))"
    code = run(["check-preprocess", str(model), "--json", "--", sys.executable, "-c", script, "{image}", "{out.npy}"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["right"], found["explained"], found["wrong"]) == (4, False, False, [])
    assert found["mean_steps"] > 1


def test_a_bundle_carries_the_images_the_crops_and_the_logits(own, tmp_path, program, capsys):
    assert run(["bundle", str(own), "-o", str(tmp_path / "bundle")]) == 0
    golden = tmp_path / "bundle/golden"
    facts = json.loads((golden / "golden.json").read_text())
    crops, logits = (np.load(golden / name, allow_pickle=False) for name in ("crops.npy", "logits.npy"))
    assert (crops.shape, crops.dtype) == ((20, 32, 32, 3), np.uint8)
    assert (logits.shape, logits.dtype) == ((20, 3), np.float32)
    assert sorted(path.name for path in (golden / "images").iterdir()) == sorted(facts["images"])
    assert facts["logits_of"] is not None
    import onnxruntime

    inputs = (crops / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    session = onnxruntime.InferenceSession(own, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.transpose(0, 3, 1, 2).astype(np.float32)})
    assert np.abs(found - logits).max() < 1e-5
