from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from model.weights.load import TensorsError, Weights, load_strict, open_weights


def module(device: str = "meta") -> nn.Module:
    with torch.device(device):
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"0.weight": torch.randn(4, 3), "0.bias": torch.randn(4), "1.weight": torch.randn(2, 4)}


def resident_kib() -> int:
    """Anonymous memory of this process: what files back is not in it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_all_keys_arrive():
    target = module()
    report = load_strict(target, tensors())
    assert report.loaded == 3 and not report.missing and not report.extra
    assert all(torch.equal(value, tensors()[name]) for name, value in target.state_dict().items())


def test_every_problem_is_listed():
    wrong = tensors() | {"1.weight": torch.zeros(2, 5), "2.weight": torch.zeros(1)}
    del wrong["0.bias"]
    target = module("cpu")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(TensorsError) as error:
        load_strict(target, wrong)
    for line in ("extra: 2.weight", "missing: 0.bias", "shape: 1.weight is (2, 5), 1.weight is (2, 4)", "3 keys"):
        assert line in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_reasons_are_reported():
    given = {"a." + name: value for name, value in tensors().items() if name != "0.bias"} | {"old": torch.zeros(1)}
    report = load_strict(
        module("cpu"),
        given,
        rename=lambda key: key.removeprefix("a."),
        may_miss={"*.bias": "starts fresh"},
        may_drop={"old": "of no use"},
    )
    assert report.missing == {"0.bias": "starts fresh"} and report.extra == {"old": "of no use"}
    assert "0.bias (starts fresh)" in str(report) and "old (of no use)" in str(report)


def test_two_sources_for_one_tensor_are_refused():
    with pytest.raises(TensorsError, match="double"):
        load_strict(module(), tensors() | {"a.0.bias": torch.zeros(4)}, rename=lambda key: key.removeprefix("a."))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_loading_takes_no_memory(tmp_path):
    """16 MiB of weights are mapped, not read: a second copy would show as anonymous memory."""
    save_file({f"{index}.weight": torch.ones(1024, 1024) for index in range(4)}, tmp_path / "big.safetensors")
    with torch.device("meta"):
        big = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(4)))
    before = resident_kib()
    load_strict(big, Weights(tmp_path))
    assert resident_kib() - before < 4 * 1024
    assert big[3].weight.sum() == 1024 * 1024
    assert resident_kib() - before < 4 * 1024


def test_dtype_is_kept_or_converted():
    half = {name: value.bfloat16() for name, value in tensors().items()}
    target = module()
    load_strict(target, half)
    assert target[0].weight.dtype == torch.bfloat16
    load_strict(target, half, dtype=torch.float32)
    assert target[0].weight.dtype == torch.float32


def test_a_sharded_module_takes_its_shard(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        target = module()
        fully_shard(target, mesh=init_device_mesh("cpu", (1,)))
        load_strict(target, tensors())
        assert torch.equal(target[0].weight.full_tensor(), tensors()["0.weight"])
        x = torch.ones(1, 3)
        plain = module()
        load_strict(plain, tensors())
        assert torch.equal(target(x), plain(x))
    finally:
        dist.destroy_process_group()


# Files


def test_shards_are_one_mapping(tmp_path):
    parts = {"a.safetensors": {"x": torch.ones(2)}, "b.safetensors": {"y": torch.zeros(3)}}
    for name, content in parts.items():
        save_file(content, tmp_path / name, {"note": "n"})
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = Weights(tmp_path)
    assert sorted(weights) == ["x", "y"] and len(weights) == 2 and "x" in weights and "z" not in weights
    assert weights.metadata() == {"note": "n"}
    assert torch.equal(weights["y"], torch.zeros(3))


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(TensorsError, match="no weights at"):
        Weights(tmp_path / "nothing")
    with pytest.raises(TensorsError, match="found none"):
        Weights(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "absent.safetensors"}}))
    with pytest.raises(TensorsError, match=r"lacks absent\.safetensors"):
        Weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(TensorsError, match="outside its folder"):
        Weights(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"no such thing")
    with pytest.raises(TensorsError, match="not a readable safetensors"):
        Weights(tmp_path / "broken.safetensors")


def test_torch_files_hold_tensors_alone(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "plain.pth")
    assert torch.equal(open_weights(tmp_path / "plain.pth")["x"], torch.ones(2))
    torch.save({"x": Path("code")}, tmp_path / "code.pth")
    with pytest.raises(TensorsError, match="plain tensors"):
        open_weights(tmp_path / "code.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(TensorsError, match="holds a list"):
        open_weights(tmp_path / "list.pth")
