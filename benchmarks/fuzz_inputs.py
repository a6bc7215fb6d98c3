"""Damaged inputs: seeded changes of bytes, text, JSON, zip members and ONNX graphs."""

import io
import json
import re
import zipfile
from copy import deepcopy
from random import Random
from typing import Any

import onnx

__all__ = ["MUTATIONS", "mutate"]

MOST_BYTES = 1 << 17
NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
WORDS = (
    "nan", "inf", "-inf", "1e309", "9" * 5000, "-1", "0", "", " ", "\x00", "\x1b]0;x\x07", "\u202e", "../../etc/passwd",
    "/dev/zero", "true", "null", "\n", "\n\n\n", "\t", ",", ":", "=", "[", "]", "{", "}", "(", ")", '"', "'", "%", "@", "#",
    "<", ">", "x" * 2000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"), "", "x",
    "0", "../../x", "x" * 500, "\x00", "\x1b[2J", "nan", [], {}, [None], [[]], [1, 2, 3], ["a"], {"a": 1}, {"": None}, [0.1] * 50,
)  # fmt: skip


def mutate(kind: str, seed: bytes, random: Random) -> bytes:
    """Return a damaged copy of a valid input.

    Args:
        kind: Name in `MUTATIONS`.
        seed: Valid input.
        random: Source of every choice.
    """
    return MUTATIONS[kind](seed, random)[:MOST_BYTES]


def of_bytes(seed: bytes, random: Random) -> bytes:
    """Change, cut, repeat or overwrite some bytes."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not data:
            return bytes(random.randbytes(random.randrange(64)))
        at, span = random.randrange(len(data)), random.choice((1, 2, 4, 8, 64, 512))
        what = random.randrange(7)
        if what == 0:
            data[at] ^= 1 << random.randrange(8)
        elif what == 1:
            data[at] = random.randrange(256)
        elif what == 2:
            del data[at : at + span]
        elif what == 3:
            data[at:at] = data[at : at + span] * random.choice((1, 2, 50))
        elif what == 4:
            number = random.choice(NUMBERS).to_bytes(9, random.choice(("little", "big")), signed=True)
            data[at : at + random.choice((2, 4, 8))] = number[:8] if number[8:] != b"" else number
        elif what == 5:
            del data[at:]
        else:
            data[at:at] = random.randbytes(span)
    return bytes(data)


def of_text(seed: bytes, random: Random) -> bytes:
    """Change words, digits and lines; sometimes bytes."""
    if random.random() < 0.15:
        return of_bytes(seed, random)
    parts = re.findall(r"\w+|\s+|[^\w\s]", seed.decode("utf-8", "replace"))
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        if not parts:
            break
        at = random.randrange(len(parts))
        what = random.randrange(6)
        if what == 0:
            parts[at] = random.choice(WORDS)
        elif what == 1:
            parts[at] = random.choice(parts)
        elif what == 2:
            del parts[at : at + random.choice((1, 3, 30))]
        elif what == 3:
            parts[at:at] = parts[at : at + random.choice((1, 3, 10))] * random.choice((1, 2, 200))
        elif what == 4:
            parts.insert(at, random.choice(WORDS))
        else:
            parts[at] = str(random.choice(NUMBERS))
    return "".join(parts).encode("utf-8", "surrogatepass")


def of_json(seed: bytes, random: Random) -> bytes:
    """Replace, rename, repeat or remove values of a JSON document; sometimes its text."""
    if random.random() < 0.1:
        return of_text(seed, random)
    document = json.loads(seed)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        document = _changed(document, random)
    text = json.dumps(document)
    if random.random() < 0.02:
        text = text.replace("1", "9" * 5000, 1)
    if random.random() < 0.02:
        text = "[" * 3000 + text
    return text.encode()


def _changed(document: Any, random: Random) -> Any:
    place = document
    path = []
    while isinstance(place, dict | list) and place and (not path or random.random() < 0.8):
        key = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
        path.append((place, key))
        place = place[key]
    if not path:
        return deepcopy(random.choice(VALUES))
    parent, key = path[-1]
    what = random.randrange(5)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[random.choice(("", "x", "0", "kind", str(key) + "x"))] = parent.pop(key)
    elif what == 1:
        parent.append(deepcopy(random.choice(VALUES)))
    else:
        parent[key] = deepcopy(random.choice(VALUES))
    return document


def of_zip(seed: bytes, random: Random) -> bytes:
    """Damage the members of a zip file and pack them again; sometimes damage the zip itself."""
    if random.random() < 0.3:
        return of_bytes(seed, random)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as source, zipfile.ZipFile(out, "w") as target:
        members = source.infolist()
        for member in members:
            data = source.read(member)
            if random.random() < 1.5 / len(members):
                data = of_bytes(data, random) if random.random() < 0.5 else of_bytes(data[:200], random) + data[200:]
            name = member.filename
            if random.random() < 0.05:
                name = random.choice(("../x", "/x", "x\\y", "images.npy", "a/b.png", "data.pkl", "x" * 300))
            target.writestr(name, data, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return out.getvalue()


def of_onnx(seed: bytes, random: Random) -> bytes:
    """Rewire, rename and retype an ONNX graph; sometimes its bytes."""
    if random.random() < 0.3:
        return of_bytes(seed, random)
    model = onnx.ModelProto.FromString(seed)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice((_rewired, _retyped, _resized))(model.graph, random)
    if random.random() < 0.1:
        model.opset_import[0].version = random.choice((0, 1, 5, 7, 9, 13, 99, -1))
    return bytes(model.SerializeToString())


def _rewired(graph: onnx.GraphProto, random: Random) -> None:
    names = [name for node in graph.node for name in (*node.input, *node.output)] + ["", "x"]
    node = random.choice(graph.node)
    what = random.randrange(3)
    if what == 0 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(names)
    elif what == 1 and node.output:
        node.output[0] = random.choice(names)
    elif node.input:
        del node.input[random.randrange(len(node.input)) :]


def _retyped(graph: onnx.GraphProto, random: Random) -> None:
    operators = ["If", "Loop", "Constant", "Reshape", "Pad", "QuantizeLinear", "Cast", "x"]
    node = random.choice(graph.node)
    if random.random() < 0.5:
        node.op_type = random.choice([each.op_type for each in graph.node] + operators)
    else:
        name = random.choice(("axis", "axes", "pads", "perm", "value", "group", "strides", "transB", "to"))
        node.attribute.append(onnx.helper.make_attribute(name, random.choice((3, -9, 1.5, [1, 2], [2**40], "x"))))


def _resized(graph: onnx.GraphProto, random: Random) -> None:
    tensor = random.choice(graph.initializer)
    dims = random.choice((graph.input[0], graph.output[0])).type.tensor_type.shape.dim
    what = random.randrange(3)
    if what == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice((0, 1, -1, 7, 2**31, 2**62))
    elif what == 1:
        tensor.data_type = random.randrange(30)
    elif dims:
        dims[random.randrange(len(dims))].dim_value = random.choice((0, -1, 1, 3, 2**40))


MUTATIONS = {"bytes": of_bytes, "text": of_text, "json": of_json, "zip": of_zip, "onnx": of_onnx}
"""Mutations by kind of input."""
