"""Plans, their steps and trtexec's options for all boards and versions, pinned; and the record of each backend.

Where a change of them is meant, regenerate the golden files with --regenerate-golden.
"""

import hashlib
import json
import re
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.records import BACKENDS
from emca_deploy.backends.registry import all_recipes
from emca_deploy.backends.tensorrt.model_facts import ModelFacts
from emca_deploy.backends.tensorrt.planner import PlanRequest, make_plan
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.backends.tensorrt.steps import can_build, list_steps, trtexec_command
from emca_deploy.backends.tensorrt.tool.builder import trtexec_build
from emca_deploy.backends.tensorrt.tool.dialects import (
    DIALECTS,
    EngineShapes,
    TrtexecBuild,
    TrtexecTiming,
    build_options,
    timing_options,
)
from emca_deploy.backends.tensorrt.versions import TABLE, rules_of
from emca_deploy.errors import EmcaError
from emca_deploy.machines.boards import BOARDS, find_board, find_jetpack, jetpacks_of

MODELS = {
    "fp32": ModelFacts(Path("net.onnx"), "fp32", 20, TensorSpec("images", "float", ("batch", 3, 64, 64)), off_dla=2),
    "int8": ModelFacts(Path("net.int8.onnx"), "int8", 26, TensorSpec("images", "float", (4, 3, 64, 64)), half_scales=True),
}
PLACES = [("8.6", None, version) for version in ("8.0.1", "8.5", "8.6.1", "9.3", "10.3.0", "10.16.2", "11.0.0", "12.0")]
PLACES += [(name, pack, None) for name, board in BOARDS.items() for pack in jetpacks_of(board)]
RECIPE_FIELDS = (
    "backend", "symmetric", "integer_bias", "residual", "every_reader", "outputs", "symmetric_gate", "fewest_channels", "on_cpu",
    "fewest_stored", "half_float_part",
)  # fmt: skip
SHAPES = EngineShapes("im:ages", (3, 8, 8), (1, 2, 4))


def facts_of(text: str) -> list[str]:
    """Return the numbers and the options in a sentence, whose words may change."""
    return re.findall(r"--[a-z-]+|\d+(?:\.\d+)*", text)


def digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, default=str, sort_keys=True).encode()).hexdigest()[:10]


def planned(device: str, jetpack: str | None, version: str | None, model: ModelFacts, **options: object) -> object:
    request = PlanRequest(
        **{"backend": "tensorrt", **options},  # type: ignore[arg-type]
        device=find_board(device),
        jetpack=find_jetpack(jetpack) if jetpack else None,
        version=version,
    )
    try:
        plan = make_plan(model, request)
    except EmcaError as exc:
        return f"{type(exc).__name__} {digest(facts_of(f'{exc.problem} {exc.remedy}'))}"
    steps = [asdict(step) for step in list_steps(plan, model, Path("a folder"))]
    try:
        command = trtexec_command(plan, model, ("one", "odd:name"))
    except EmcaError as exc:
        command = type(exc).__name__
    found = plan.to_dict()
    words = [found["quantization"], found["typing"], *found["builder_flags"], *(["builds"] if can_build(plan) else [])]
    found |= {name: [facts_of(sentence) for sentence in found[name]] for name in ("reasons", "warnings")}
    return " ".join([*words, digest([found, steps, command])])


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_plans_are_what_they_were(golden, precision: str) -> None:
    found = {
        f"{' '.join(filter(None, place))} {name}{' dla' if dla else ''}": planned(
            *place, MODELS[name], dla=dla, precision=precision
        )
        for place, name, dla in product(PLACES, MODELS if precision == "int8" else ["fp32"], (False, True))
    }
    for version in ("1.3", "1.4", "1.7", "2.0"):
        for device in ("7.5", "8.9", "orin-nx"):
            place = (device, "6.2" if device == "orin-nx" else None, version)
            found[f"rtx {device} {version}"] = planned(*place, MODELS["fp32"], backend="tensorrt-rtx", precision=precision)
    golden(f"plans/{precision}", found)


def options_or_error(make, *arguments: object) -> object:
    try:
        return make(*arguments)
    except EmcaError as exc:
        return type(exc).__name__


def test_options_of_trtexec_are_what_they_were(golden) -> None:
    build = TrtexecBuild("net.onnx", "net.engine", typed=False, int8=True, shapes=SHAPES)
    builds = {
        "typed": replace(build, typed=True, int8=False),
        "int8": replace(build, shapes=replace(SHAPES, batches=(2, 2, 2)), workspace_mib=64),
        "cache": replace(build, int8=False, fp16=True, cache="c", float_layers=("a", "b*", "c,d"), dla_core=1),
        "level": replace(build, optimization_level=4, shapes=None),
    }
    timing = TrtexecTiming("net.engine", "times.json")
    timings = {
        "plain": timing,
        "whole": replace(timing, shapes=SHAPES, profile="p", layer_info="l", duration_s=2.6, warm_up_ms=99.6),
        "dla": replace(timing, one_at_a_time=False, dla_core=0, duration_s=0.2),
    }
    found: dict[str, object] = {}
    for first, _ in DIALECTS:
        version = (*first, 1)
        found |= {f"build {name} {version}": options_or_error(build_options, version, one) for name, one in builds.items()}
        found |= {f"time {name} {version}": options_or_error(timing_options, version, one) for name, one in timings.items()}
    found["too old"] = options_or_error(build_options, (7, 2, 1), builds["typed"])
    for version, model, core, cache in product(((8, 6, 1), (10, 3, 0), (11, 0, 0)), MODELS, (None, 0), (None, Path("c"))):
        settings = TrtSettings(dla_core=core, calibration_cache=cache, workspace_mib=3, optimization_level=2)
        made = options_or_error(trtexec_build, version, MODELS[model], settings, (1, 2, 3) if core is None else None, "e", ("f",))
        found[f"settings {version} {model} {core} {cache}"] = digest(made) if isinstance(made, str) else digest(asdict(made))  # type: ignore[call-overload]
    golden("plans/trtexec", found)


def test_rules_and_records_are_what_they_were(golden) -> None:
    found: dict[str, object] = {}
    for name, first, _ in TABLE:
        for version in (f"{first[0]}.{first[1]}", f"{first[0]}.{first[1]}.7.8", f"{first[0]}.{first[1] + 1}", f"{first[0]}"):
            made = options_or_error(rules_of, name, version)
            found[f"{name} {version}"] = made if isinstance(made, str) else [key for key, value in asdict(made).items() if value]  # type: ignore[call-overload]
    for name, backend in BACKENDS.items():
        found[name] = json.loads(json.dumps(asdict(backend), default=list))
    for recipe in all_recipes():
        flags = {key: getattr(recipe, key) for key in RECIPE_FIELDS}
        names = [one.__name__ for one in (*recipe.rewrites, *filter(None, [recipe.explainer]))]
        found[f"recipe {recipe.backend}"] = {**flags, "readers": sorted(recipe.readers), "calls": names}
    golden("plans/records", found)
