"""Checkpoints of several files with an index."""

import json

import pytest
from refusals import refusing

from emca_deploy.checkpoint_files.opening import list_shards
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoints import load_checkpoint
from zoo.checkpoints import assert_loads, hugging_face, numbered, refused


def sharded(folder, state, shards=3, ending=".safetensors"):
    import torch
    from safetensors.torch import save_file

    contiguous = {name: value.clone() for name, value in state.items()}
    names = sorted(contiguous)
    weight_map = {}
    for number in range(shards):
        part = {name: contiguous[name] for name in names[number::shards]}
        file = f"model-{number + 1:05}-of-{shards:05}{ending}"
        if ending == ".safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / f"model{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_shards_load_by_their_index_also_through_links(tmp_path, ending):
    (blobs, snapshot) = (tmp_path / "blobs", tmp_path / "snapshot")
    blobs.mkdir()
    snapshot.mkdir()
    state = numbered()
    index = sharded(blobs, hugging_face(state), ending=ending)
    for number, file in enumerate(sorted(blobs.iterdir())):  # as in the cache of Hugging Face
        target = file.rename(blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(target)
    spec = assert_loads(snapshot / index.name, state)
    assert spec.layout == "huggingface"
    assert list_shards(snapshot / index.name) == sorted(snapshot.glob("model-*"))
    assert list_shards(next(snapshot.glob("model-*"))) == []
    assert "index.json" in refused(snapshot).remedy


def test_shards_that_are_missing_cut_or_elsewhere_are_refused(tmp_path):
    index = sharded(tmp_path, numbered())
    shard = tmp_path / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with refusing(CheckpointError, shard):
        load_checkpoint(index)
    shard.unlink()
    assert shard.name in refused(index).problem
    for place in ("../x.safetensors", "/etc/passwd", "", ".."):
        index.write_text(json.dumps({"weight_map": {"a": place}}))
        assert "not a file of its own folder" in refused(index).problem
    index.write_text(json.dumps({"weight_map": {"x": index.name}}))
    assert "another index" in refused(index).problem
    assert "index of shards" in refused(sharded_json(tmp_path, {"a": 1})).problem


def sharded_json(folder, value):
    path = folder / "config.json"
    path.write_text(json.dumps(value))
    return path


def test_a_shard_alone_says_that_the_rest_is_missing(tmp_path):
    sharded(tmp_path, numbered())
    assert "missing" in refused(tmp_path / "model-00001-of-00003.safetensors").problem
