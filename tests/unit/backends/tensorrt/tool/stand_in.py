"""A stand-in for trtexec that refuses what a version's parser refuses, and prints and exports in that version's format.

The formats are those of recorded logs and of sampleReporting.cpp at each version's tag; options.json lists the options.
`behaviour.json` next to this file contains the version and the failures.
"""

# ruff: noqa: T201

import json
import random
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).resolve().parent
WISH = json.loads((HERE / "behaviour.json").read_text())
VERSION = WISH["version"]
NUMBER = int(VERSION)
OLD = NUMBER < 8500
STAMP = "[11/23/2026-02:00:00]"
SUFFIX = " [b30]" if NUMBER >= 110000 else ""


def say(severity, text, library=False):
    print(f"{STAMP} [{severity}] {'[TRT] ' if library else ''}{text}", flush=True)


def end(passed):
    state = "PASSED" if passed else "FAILED"
    print(f"&&&& {state} TensorRT.trtexec [TensorRT v{VERSION}]{SUFFIX} # {' '.join(sys.argv)}", flush=True)
    sys.exit(0 if passed else 1)


def known():
    options = set()
    for version, change in json.loads((HERE / "options.json").read_text())["versions"].items():
        if int(version) <= NUMBER:
            options = (options | set(change["added"])) - set(change["removed"])
    return options


def percentile(ordered, percent):
    return ordered[max(len(ordered) - 1 - int((1 - percent / 100) * len(ordered)), 0)]


def summary(name, values, percents):
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    if WISH.get("wrong_median") and name == "Latency":
        median *= 1.5
    mean = sum(ordered) / len(ordered)
    text = f"{name}: min = {ordered[0]:g} ms, max = {ordered[-1]:g} ms, mean = {mean:g} ms, median = {median:g} ms"
    say("I", text + "".join(f", percentile({p:g}%) = {percentile(ordered, p):g} ms" for p in percents))


def build(options):
    model = Path(options["--onnx"])
    if WISH.get("bad_model"):
        say("E", '[TRT] ModelImporter.cpp:771: While parsing node number 4 [Foo -> "y"]:')
        say("E", "Engine set up failed")
        end(False)
    assert model.stat().st_size
    if "--useDLACore" in options:
        talk = "V" if NUMBER >= 8600 else "I"
        say(
            "W",
            "Layer 'stage1.block0.attention.pool' (REDUCE): Unsupported on DLA. Switching this layer's device type to GPU.",
            True,
        )
        say(talk, "---------- Layers Running on DLA ----------", True)
        say(talk, "[DlaLayer] {ForeignNode[stem.conv...stage1.block0.conv2]}", True)
        say(talk, "---------- Layers Running on GPU ----------", True)
        say(talk, "[GpuLayer] REDUCE: stage1.block0.attention.pool", True)
        say(talk, "[GpuLayer] CONVOLUTION: stage1.block0.attention.excitation.conv", True)
    say("V", "Engine Layer Information:", True)
    print("Layer(CaskConvolution): stem.conv, Tactic: 0x1, images (Int8[1,3,64,64]) -> stem.conv (Int8[1,64,32,32])")
    if WISH.get("hang") == "build":
        Path(options["--saveEngine"]).write_bytes(b"half of an engine")
        time.sleep(120)
    if WISH.get("kill") == "build":
        import os

        os.kill(os.getpid(), 9)
    Path(options["--saveEngine"]).write_bytes(b"" if WISH.get("no_engine") else b"an engine of " + VERSION.encode())
    if WISH.get("no_engine"):
        Path(options["--saveEngine"]).unlink()
    say("I", "Engine built in 12.5 sec.")


def times(options):
    draw = random.Random(0)
    count, warm = WISH.get("queries", 400), 60
    rows, clock = [], 0.0
    for index in range(warm + count):
        copy_in, copy_out = 0.02 + draw.random() / 500, 0.004 + draw.random() / 1000
        compute = (1.5 if index >= warm else 4.0) * (1 + draw.random() * WISH.get("noise", 0.01))
        rows.append((clock, copy_in, compute, copy_out))
        clock += copy_in + compute + copy_out
    measured = rows[warm:]
    exported = rows if OLD else measured
    lines = []
    for start, copy_in, compute, copy_out in exported:
        at = [start, start + copy_in, start + copy_in + compute, start + copy_in + compute + copy_out]
        fields = {
            "startEnqMs": start, "endEnqMs": start + 0.01, "startH2dMs": at[0], "endH2dMs": at[1], "startComputeMs": at[1],
            "endComputeMs": at[2], "startD2hMs": at[2], "endD2hMs": at[3], "h2dMs": copy_in, "computeMs": compute,
            "d2hMs": copy_out, "latencyMs": copy_in + compute + copy_out,
            **({"endToEndMs": at[3] - start + 1.0} if NUMBER < 8400 else {}),
        }  # fmt: skip
        lines.append("{ " + ", ".join(f'"{name}" : {value:g}' for name, value in fields.items()) + " }")
    text = "[\n  " + "\n, ".join(lines) + "\n]\n"
    if WISH.get("not_a_number"):
        text = text.replace('"latencyMs" : 1', '"latencyMs" : inf, "x" : 1', 1)
    Path(options["--exportTimes"]).write_text(text[: len(text) // 2] if WISH.get("truncate") else text)
    return measured, warm


def report(options, measured, warm):
    duration = sum(sum(row[1:]) for row in measured) / 1000
    say("I", f"Warmup completed {warm} queries over 200 ms")
    say("I", f"Timing trace has {len(measured) + WISH.get('miscount', 0)} queries over {duration:g} s")
    say("I", "")
    say("I", "=== Trace details ===")
    say("I", "Average on 10 runs - GPU latency: 1.5 ms - Host latency: 1.53 ms (enqueue 0.01 ms)")
    say("I", "=== Performance summary ===")
    say("I", f"Throughput: {len(measured) / duration:g} qps")
    percents = [99.0] if OLD else [float(p) for p in options.get("--percentile", "90,95,99").split(",")]
    latency = [sum(row[1:]) for row in measured]
    summary("Latency", latency, percents)
    if NUMBER < 8400:
        summary("End-to-End Host Latency", [value + 1 for value in latency], percents)
    summary("Enqueue Time", [0.01] * len(measured), percents)
    summary("H2D Latency", [row[1] for row in measured], percents)
    summary("GPU Compute Time", [row[2] for row in measured], percents)
    summary("D2H Latency", [row[3] for row in measured], percents)
    say("I", f"Total Host Walltime: {duration:g} s")
    if WISH.get("noise", 0) > 0.05 and NUMBER >= 8400:
        say("W", "* GPU compute time is unstable, with coefficient of variance = 12.5%.")
        say("W", "  If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability.")


def infer(options):
    if WISH.get("no_gpu"):
        say("E", "Error[6]: [CUDA initialization failure with error: 100. Please check your CUDA installation]")
        end(False)
    assert Path(options["--loadEngine"]).read_bytes().startswith(b"an engine")
    say("I", "[MemUsageChange] Init CUDA: CPU +12, GPU +0, now: CPU 345, GPU 3217 (MiB)", True)
    say("I", f"Engine {'deserialized' if NUMBER >= 8600 else 'loaded'} in 0.0512 sec.")
    say("I", "Starting inference")
    time.sleep(WISH.get("run_s", 0))
    if WISH.get("hang") == "infer":
        time.sleep(120)
    if WISH.get("graph_lost"):
        say("W", "The built TensorRT engine contains operations that are not permitted under CUDA graph capture mode.")
    report(options, *times(options))
    if "--exportProfile" in options:
        median = "" if NUMBER < 8400 else ', "medianMs" : 0.9'
        name = WISH.get("layer_name", "stem.conv + stem.relu")
        rows = [f'{{ "name" : "{name}", "timeMs" : 400.5, "averageMs" : 1.00125{median}, "percentage" : 66.6 }}']
        rows.append(f'{{ "name" : "head", "timeMs" : 200, "averageMs" : 0.5{median}, "percentage" : 33.4 }}')
        Path(options["--exportProfile"]).write_text('[\n  { "count" : 400 }\n, ' + "\n, ".join(rows) + "\n]\n")
    if "--exportLayerInfo" in options:
        layer = {"Name": "stem.conv", "LayerType": "CaskConvolution", "Outputs": [{"Name": "y", "Format/Datatype": "Int8"}]}
        detailed = options.get("--profilingVerbosity") == "detailed"
        document = {"Layers": [layer if detailed else "stem.conv"], **({} if OLD else {"Bindings": ["images", "logits"]})}
        Path(options["--exportLayerInfo"]).write_text(json.dumps(document))


def main():
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{VERSION}]{SUFFIX} # {' '.join(sys.argv)}", flush=True)
    options = dict([*argument.split("=", 1), ""][:2] for argument in sys.argv[1:])
    if "--help" in options:
        print("=== Model Options ===\n  --onnx=<file>  ONNX model")
        return
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    unknown = [name for name in options if name not in known()]
    for name in unknown:
        say("E", f"Unknown option: {name} {options[name]}")
    if unknown:
        end(False)
    say("I", f"TensorRT version: {VERSION}")
    if "--onnx" in options:
        build(options)
    if "--buildOnly" not in options and "--skipInference" not in options:
        infer(options)
    end(True)


main()
