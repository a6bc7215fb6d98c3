"""Draw the plots of the documentation from the recorded results.

    python benchmarks/plots.py        # writes docs/images/*.svg from benchmarks/results/*.json

Each plot is 360 pixels wide, which a phone shows without scaling, and has a light and a dark form (prefers-color-scheme).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import Axis, fit_axis

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs/images"
WIDTH = 360
ROW = 20
STYLE = (
    "<style>svg { color: #1b1f24; font-family: system-ui, sans-serif } .paper { fill: #fff }\n"
    "@media (prefers-color-scheme: dark) { svg { color: #e8ecf0 } .paper { fill: #14181d } }</style>"
)

Bar = tuple[str, float, int]
"""Label, value, and the series that determines the bar's colour."""

Series = Sequence[str]


def results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def drawn(name: str, title: str, told: str, shapes: list[str], height: float) -> str:
    paper = f'<rect class="paper" x="-12" y="-12" width="{WIDTH + 24}" height="{height + 24:.0f}"/>'
    return svg.document(name, (WIDTH, round(height)), title, told, [STYLE, paper, *shapes], margin=12)


def heading(title: str, series: Series) -> tuple[list[str], float]:
    """Return a plot's title, the key to its series, and the y position where the drawing begins."""
    shapes = [svg.text(0, 12, title, bold=True)]
    for index, words in enumerate(series):
        y = 34 + ROW * index
        shapes += [svg.marker(index, 7, y - 4, 5), svg.text(20, y, words)]
    return shapes, 22 + ROW * len(series)


def scale(axis: Axis, top: float, bottom: float, unit: str) -> list[str]:
    shapes = []
    for value, words in axis.ticks():
        x = axis.px(value)
        shapes += [svg.line((x, top), (x, bottom), opacity=0.15), svg.text(x, bottom + 17, words, anchor="middle")]
    return [*shapes, svg.text(WIDTH / 2, bottom + 36, unit, anchor="middle", muted=True)]


def bars(name: str, title: str, unit: str, series: Series, groups: Sequence[tuple[str, Sequence[Bar]]], decimals: int = 1) -> str:
    """Return a bar chart with the label above each bar, which fits a narrow page."""
    shapes, y = heading(title, series)
    most = max(value for _, listed in groups for _, value, _ in listed)
    told = []
    for group, listed in groups:
        if group:
            y += 26
            shapes.append(svg.text(0, y, group, bold=True))
            y += 4
        for label, value, index in listed:
            y += 18
            shapes.append(svg.text(0, y, label))
            end = value / most * (WIDTH - 60)
            shapes += [svg.box(0, end, y + 5, 11, svg.COLOURS[index]), svg.text(end + 6, y + 15, f"{value:.{decimals}f}")]
            told.append(f"{group} {label}: {value:.{decimals}f}".strip())
            y += 20
    shapes.append(svg.text(WIDTH, y + 18, unit, anchor="end", muted=True))
    return drawn(name, title, f"{unit}. {'; '.join(told)}", shapes, y + 26)


def dots(
    name: str, title: str, unit: str, series: Series, rows: Sequence[tuple[str, Sequence[float]]], guides: Sequence[float]
) -> str:
    """Return a row of marks for each label, with dashed lines at the values of `guides`."""
    shapes, top = heading(title, series)
    left = 12 + max(svg.text_width_px(label) for label, _ in rows) if rows[0][0] else 8
    high = ROW if rows[0][0] else 10
    axis = fit_axis([value for _, values in rows for value in values] + list(guides), left, WIDTH - 8, may_be_log=False)
    bottom = top + high * len(rows) + 8
    shapes += scale(axis, top, bottom, unit)
    shapes += [svg.line((axis.px(value), top), (axis.px(value), bottom), dash="5 4", opacity=0.7) for value in guides]
    for number, (label, values) in enumerate(rows):
        y = top + high * (number + 0.7)
        shapes += [svg.text(0, y + 4, label)] if label else []
        shapes += [svg.marker(index if len(values) > 1 else 0, axis.px(value), y, 4.5) for index, value in enumerate(values)]
    told = "; ".join(
        f"{label or number + 1}: {', '.join(f'{value:.3g}' for value in values)}" for number, (label, values) in enumerate(rows)
    )
    return drawn(name, title, f"{', '.join(series) or 'value'} ({unit}). {told}", shapes, bottom + 42)


def latency() -> str:
    words = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch eager"}
    groups = []
    for arch, found in results("cpu-epyc-zen4-2core")["architectures"].items():
        listed = sorted(found["results"], key=lambda each: (each["precision"] == "int8", words[each["backend"]]))
        groups.append(
            (arch, [(words[each["backend"]], each["latency_ms"]["p50"], int(each["precision"] == "int8")) for each in listed])
        )
    return bars("latency", "Median latency on two CPU cores", "ms a call, 224x224, batch 1", ("fp32", "INT8"), groups)


def accuracy() -> str:
    rows = []
    for network, found in sorted(results("quantization-families-epyc-zen3-2core").items()):
        drops = {row["candidate"].split()[1]: row["figures"]["top1_drop"] for row in found["rows"] if row["candidate"] != "fp32"}
        rows.append((network, [drops[backend] for backend in ("openvino", "onnxruntime", "tensorrt")]))
    series = ("OpenVINO", "ONNX Runtime", "TensorRT, simulated")
    return dots("accuracy", "What INT8 costs 13 networks", "drop of top-1, points (10,000 images)", series, rows, [0])


def cost() -> str:
    words = {
        "ours, minmax, recover none": ("emca-deploy, minmax, --recover none", 0),
        "ours, auto, recover weights": ("emca-deploy, the default", 0),
        "NNCF MIXED": ("NNCF MIXED", 1),
        "quantize_static MinMax": ("ONNX Runtime quantize_static", 1),
    }
    rows = {row["candidate"]: row["figures"]["images_per_s"][0] for row in results("calibration-cost-epyc-zen3-2core")["rows"]}
    listed = [(label, rows[key], index) for key, (label, index) in words.items()]
    title = "Calibrating with 300 images on two cores"
    return bars("calibration-cost", title, "images/s, emca_eca_resnet18 at 224x224", (), [("", listed)])


def repeatability() -> str:
    found = results("harness-itself-warm-16s-epyc-zen3-2core")["itself"]
    rows = [("", [ratio]) for ratio in found["ratios"]]
    return dots(
        "repeatability", "One file against itself, 20 runs", "ratio of the medians; truth is 1", (), rows, [0.98, 1, 1.02]
    )


def engines() -> str:
    found = results("tensorrt-rtx-1.7.1-builds")["architectures"]
    kinds = (("fp32", "fp32"), ("fp16", "fp16"), ("INT8", "int8"), ("INT8 with an fp16 float part", "int8_fp16"))
    groups = [
        (arch, [(label, found[arch][key]["engine_mib"], index) for index, (label, key) in enumerate(kinds)])
        for arch in ("resnet50", "emca_eca_resnet50", "se_resnet50")
    ]
    return bars("engine-size", "Size of TensorRT-RTX engines", "MiB, 1,000 classes", (), groups)


PLOTS: tuple[Callable[[], str], ...] = (latency, accuracy, cost, repeatability, engines)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        text = plot()
        name = text.split('aria-labelledby="')[1].split("-title")[0]
        (IMAGES / f"{name}.svg").write_text(text + "\n", encoding="utf-8")
        print(IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
