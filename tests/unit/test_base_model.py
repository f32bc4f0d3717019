import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file

from shared.errors import ManifestInvalid, SettingsInvalid, WeightsInvalid
from shared.manifest import Manifest, load_manifest
from training.architecture import MODELS
from worker.base_model import load_base, locate_base
from worker.loading import build_scheduler, choose_device, quieten_libraries

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = load_manifest(MODELS / "rubber-tile-mini.toml").render.scheduler


@pytest.fixture(autouse=True)
def quiet() -> None:
    quieten_libraries()


@pytest.fixture
def folder(checkpoint_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_dir, tmp_path / "base"))


def make_manifest(base: str, folder: Path) -> Manifest:
    return Manifest.model_validate(
        {
            "owner": "granule",
            "name": "test",
            "version": "0" * 64,
            "created_at": "2026-01-01T00:00:00Z",
            "description": "",
            "base": base,
            "prompt": {"template": "x {prompt}", "trigger": "x"},
            "folder": folder,
        }
    )


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop_first(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[sorted(tensors)[0]]


def scale_one(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).mul_(1.5)


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in tensors if name.endswith("conv2.weight"))]


def poison_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors[next(iter(tensors))].flatten()[0] = float("nan")


def reshape_one(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("conv2.weight"))
    tensors[name] = tensors[name][:-1].clone()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_part_that_lacks_a_tensor_is_refused_rather_than_filled_with_noise(folder: Path, part: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    edit_tensors(path, drop_first)
    with pytest.raises(WeightsInvalid, match=rf"base/{part}\b.*(absent|cannot be loaded)"):
        load_base(folder, build_scheduler(SCHEDULER))


@pytest.mark.parametrize(
    ("edit", "says"),
    [(poison_one, "holds NaN or infinity"), (reshape_one, "unet.*(wrong shape|cannot be loaded)"), (drop_one, "unet.*absent")],
)
def test_a_damaged_unet_is_refused(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None], says: str) -> None:
    edit_tensors(folder / UNET_FILE, edit)
    with pytest.raises(WeightsInvalid, match=says):
        load_base(folder, build_scheduler(SCHEDULER))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("unet/config.json", b"version https://git-lfs.github.com/spec/v1\n", r"unet/config\.json is a Git LFS pointer"),
        (UNET_FILE, b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("tokenizer/vocab.json", b"", r"vocab\.json is empty"),
        ("tokenizer_2/vocab.json", b"{]", r"tokenizer_2/vocab\.json is not JSON"),
        ("tokenizer_2/merges.txt", b"#version: 0.2\nzz qq\n", "tokenizer_2 cannot be loaded"),
        ("text_encoder/config.json", b'{"hidden_size": "wide"}', "text_encoder cannot be loaded"),
        ("model_index.json", b"{]", r"model_index\.json is not JSON"),
    ],
)
def test_every_file_of_the_base_is_looked_at(folder: Path, file: str, content: bytes, says: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(WeightsInvalid, match=says):
        load_base(folder, build_scheduler(SCHEDULER))


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    path = folder / "tokenizer" / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({**vocabulary, "zzzgranulezzz</w>": len(vocabulary)}))
    with pytest.raises(WeightsInvalid, match="a tokenizer knows 49409 tokens, its text encoder 49408"):
        load_base(folder, build_scheduler(SCHEDULER))


def test_a_tokenizer_without_its_length_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(WeightsInvalid, match="set model_max_length"):
        load_base(folder, build_scheduler(SCHEDULER))


def test_a_part_that_is_there_only_as_a_pickle_is_refused(folder: Path) -> None:
    (folder / UNET_FILE).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsInvalid, match="only diffusion_pytorch_model.bin, a pickle"):
        load_base(folder, build_scheduler(SCHEDULER))


def test_the_pin_of_the_base_is_compared_before_anything_is_loaded(folder: Path) -> None:
    digest = load_base(folder, build_scheduler(SCHEDULER)).sha256
    edit_tensors(folder / UNET_FILE, scale_one)
    with pytest.raises(WeightsInvalid, match=f"pins {digest}"):
        load_base(folder, build_scheduler(SCHEDULER), sha256=digest)


def test_half_precision_and_sharded_files_load_to_the_same_weights(folder: Path, pristine_pipeline: Any) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / UNET_FILE).items()}
    (folder / UNET_FILE).unlink()
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    encoder = load_file(folder / "text_encoder" / "model.safetensors")
    (folder / "text_encoder" / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(encoder)}
    for shard in set(shards.values()):
        held = {name: tensor for name, tensor in encoder.items() if shards[name] == shard}
        save_file(held, folder / "text_encoder" / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))
    mixed = load_base(folder, build_scheduler(SCHEDULER)).pipeline
    for name, tensor in pristine_pipeline.unet.state_dict().items():
        assert torch.equal(mixed.unet.state_dict()[name], tensor.half().float())
    for name, tensor in pristine_pipeline.text_encoder.state_dict().items():
        assert torch.equal(mixed.text_encoder.state_dict()[name], tensor)


def test_the_base_is_looked_up_beside_the_manifest_or_under_the_setting(checkpoint_dir: Path, tmp_path: Path) -> None:
    manifest = make_manifest(checkpoint_dir.name, checkpoint_dir.parent)
    assert locate_base(manifest, None) == checkpoint_dir
    with pytest.raises(WeightsInvalid, match="is no folder; put the base model of granule/test there"):
        locate_base(manifest, tmp_path)


def test_a_pipeline_of_another_kind_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(WeightsInvalid, match="is for StableDiffusionPipeline"):
        locate_base(make_manifest("base", folder.parent), None)


def test_the_sampler_has_every_field_stated_and_the_manifests_values() -> None:
    scheduler = build_scheduler(SCHEDULER)
    fields = set(inspect.signature(DPMSolverMultistepScheduler.__init__).parameters) - {"self"}
    assert not set(scheduler.config.get("_use_default_values", [])) & fields
    assert {name: scheduler.config[name] for name in SCHEDULER.model_dump()} == SCHEDULER.model_dump()


@pytest.mark.parametrize("change", [{"prediction_type": "epsilon"}, {"beta_schedule": "scaled_linear"}, {"beta_end": 0.012}])
def test_a_sampler_for_another_training_is_refused_rather_than_drawing_noise(
    checkpoint_dir: Path, change: dict[str, object]
) -> None:
    (field,) = change
    with pytest.raises(ManifestInvalid, match=rf"render\.scheduler\.{field} is {change[field]}.*trained with"):
        load_base(checkpoint_dir, build_scheduler(SCHEDULER.model_copy(update=change)))


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingsInvalid, match="GRANULE_DEVICE is cuda:99"):
        choose_device("cuda:99")
