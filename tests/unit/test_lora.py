import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from shared.errors import WeightsInvalid
from training.architecture import LORA_FILE
from worker.lora import ADAPTER, check_layers, fuse_lora, inject_layers
from worker.lora_keys import COMPONENTS, parse_layers

RANK = 4
STRENGTH = 0.7
ATTENTION = tuple(
    ("unet", f"{block}.transformer_blocks.0.{attention}.{projection}")
    for block in ("down_blocks.2.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.1")
    for attention, projection in (("attn1", "to_q"), ("attn1", "to_out.0"), ("attn2", "to_k"), ("attn2", "to_v"))
)
UNET = (*ATTENTION, ("unet", "down_blocks.0.resnets.0.conv2"), ("unet", "up_blocks.3.resnets.1.conv2"))
ALL = (
    *UNET,
    ("text_encoder", "encoder.layers.0.self_attn.q_proj"),
    ("text_encoder", "encoder.layers.1.self_attn.out_proj"),
    ("text_encoder_2", "text_model.encoder.layers.2.self_attn.v_proj"),
)
# The same UNet layers as Stability's code numbers them: two numbered blocks a level, in each 0 is a resnet, 1 its attention.
SGM_NAMES = {
    "down_blocks.2.attentions.0": "input_blocks_5_1",
    "mid_block.attentions.0": "middle_block_1",
    "up_blocks.1.attentions.1": "output_blocks_3_1",
    "down_blocks.0.resnets.0.conv2": "input_blocks_1_0_out_layers_3",
    "up_blocks.3.resnets.1.conv2": "output_blocks_7_0_out_layers_3",
}

Layers = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]
Spelling = Callable[[str, str], tuple[str, str]]


def make_layers(pipeline: Any, names: tuple[tuple[str, str], ...], dtype: torch.dtype = torch.float32) -> Layers:
    generator = torch.Generator().manual_seed(1)
    layers: Layers = {}
    for component, module in names:
        weight = getattr(pipeline, component).get_submodule(module).weight
        kernel = weight.shape[2:]
        down = torch.randn((RANK, *weight.shape[1:]), generator=generator) * 0.1
        up = torch.randn((weight.shape[0], RANK, *(1 for _ in kernel)), generator=generator) * 0.1
        layers[component, module] = (down.to(dtype), up.to(dtype))
    return layers


def spell(layers: Layers, spelling: Spelling, alpha: float | None = None) -> dict[str, torch.Tensor]:
    tensors = {}
    for (component, module), halves in layers.items():
        for key, tensor in zip(spelling(component, module), halves, strict=True):
            tensors[key] = tensor
        if alpha is not None:
            tensors[spelling(component, module)[0].split(".")[0] + ".alpha"] = torch.tensor(alpha)
    return tensors


def pair(stem: str, down: str = "lora_A", up: str = "lora_B") -> tuple[str, str]:
    return f"{stem}.{down}.weight", f"{stem}.{up}.weight"


def peft(component: str, module: str) -> tuple[str, str]:
    return pair(f"{component}.{module}")


def diffusers_keys(component: str, module: str) -> tuple[str, str]:
    part = "lora" if component == "unet" else "lora_linear_layer"
    return pair(f"{component}.{module}", f"{part}.down", f"{part}.up")


def processor(component: str, module: str) -> tuple[str, str]:
    attention, _, projection = module.removesuffix(".0").rpartition(".")
    return pair(f"{component}.{attention}.processor.{projection}_lora", "down", "up")


def kohya_stem(component: str, module: str) -> str:
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_"}[component]
    return prefix + module.removeprefix("text_model.").replace(".", "_")


def kohya(component: str, module: str) -> tuple[str, str]:
    return pair(kohya_stem(component, module), "lora_down", "lora_up")


def kohya_sgm(component: str, module: str) -> tuple[str, str]:
    for name, sgm in SGM_NAMES.items():
        if module.startswith(name):
            return pair(f"lora_unet_{sgm}{module.removeprefix(name).replace('.', '_')}", "lora_down", "lora_up")
    raise KeyError(module)


def kohya_of_diffusers_helper(component: str, module: str) -> tuple[str, str]:
    if component != "unet":
        return kohya(component, module)
    stem = kohya_stem(component, module) + "_lora"
    return pair(stem, "down", "up")


def baked_name(component: str, module: str) -> tuple[str, str]:
    return pair(f"{component}.{module}", "lora_A.default_0", "lora_B.default_0")


def without_prefix(spelling: Spelling) -> Spelling:
    return lambda component, module: tuple(key.removeprefix("unet.") for key in spelling(component, module))  # type: ignore[return-value]


def with_prefix(prefix: str, spelling: Spelling) -> Spelling:
    return lambda component, module: tuple(prefix + key for key in spelling(component, module))  # type: ignore[return-value]


def wrapped_kohya(prefix: str) -> Spelling:
    return lambda _, module: pair(prefix + module.replace(".", "_"), "lora_down", "lora_up")


FORMATS = {
    "PEFT keys with component": (ALL, peft, None),
    "diffusers": (ALL, diffusers_keys, None),
    "attention processors": (ATTENTION, processor, None),
    "kohya": (ALL, kohya, RANK),
    "kohya with numbered blocks": (UNET, kohya_sgm, RANK),
    "cog: processors without prefix": (ATTENTION, without_prefix(processor), None),
    "no prefix": (UNET, without_prefix(peft), None),
    "PEFT adapter_model": (UNET, with_prefix("base_model.model.", without_prefix(peft)), None),
    "PEFT adapter_model under unet.": (UNET, with_prefix("unet.base_model.model.", without_prefix(peft)), None),
    "adapter name in the key": (ALL, baked_name, None),
    "lora_unet_base_model_model_": (UNET, wrapped_kohya("lora_unet_base_model_model_"), RANK),
    "base_model_model_": (UNET, wrapped_kohya("base_model_model_"), RANK),
    "kohya as diffusers' helper writes it": (ALL, kohya_of_diffusers_helper, None),
    "unet. twice": (UNET, with_prefix("unet.", peft), None),
}


def states(pipeline: Any) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name in COMPONENTS for key, value in getattr(pipeline, name).state_dict().items()}


def assert_same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


def fuse_with_diffusers(pristine: Any, path: Path) -> dict[str, torch.Tensor]:
    """Load a file by diffusers' own front door and return the weights that result."""
    models = {name: copy.deepcopy(getattr(pristine, name)) for name in COMPONENTS}
    pipeline = type(pristine)(**{**pristine.components, **models}, add_watermarker=False)
    pipeline.load_lora_weights(str(path))
    pipeline.fuse_lora(components=list(COMPONENTS), lora_scale=STRENGTH)
    pipeline.unload_lora_weights()
    return states(pipeline)


@pytest.fixture(scope="module")
def references(pristine_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, torch.Tensor]]:
    """The weights that diffusers makes of its own format, for each set of layers."""
    folder = tmp_path_factory.mktemp("references")
    fused = {}
    for names in (ALL, UNET, ATTENTION):
        path = folder / f"{len(names)}.safetensors"
        save_file(spell(make_layers(pristine_pipeline, names), peft), path)
        fused[names] = fuse_with_diffusers(pristine_pipeline, path)
    return fused


def parse(pipeline: Any, path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Any:
    return parse_layers(path, tensors, metadata or {}, {name: getattr(pipeline, name) for name in COMPONENTS})


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_fuses_to_the_same_bits_as_the_reference(
    base_pipeline: Any, references: dict[Any, dict[str, torch.Tensor]], tmp_path: Path, format_: str
) -> None:
    names, spelling, alpha = FORMATS[format_]
    save_file(spell(make_layers(base_pipeline, names), spelling, alpha), tmp_path / "lora.safetensors")
    assert fuse_lora(base_pipeline, tmp_path / "lora.safetensors", strength=STRENGTH) == len(names)
    assert_same_bits(states(base_pipeline), references[names])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened_exactly(base_pipeline: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    layers = make_layers(base_pipeline, UNET, dtype)
    before = base_pipeline.unet.get_submodule(UNET[0][1]).weight.clone()
    save_file(spell(layers, peft), tmp_path / "lora.safetensors")
    fuse_lora(base_pipeline, tmp_path / "lora.safetensors", strength=STRENGTH)
    down, up = layers[UNET[0]]
    expected = before + STRENGTH * (up.float() @ down.float())
    torch.testing.assert_close(base_pipeline.unet.get_submodule(UNET[0][1]).weight, expected, rtol=0, atol=1e-6)


def test_alpha_scales_the_delta_by_alpha_over_rank_for_each_layer(base_pipeline: Any, tmp_path: Path) -> None:
    layers = make_layers(base_pipeline, ALL)
    alphas = {name: float(1 + index) for index, name in enumerate(ALL)}
    tensors = spell(layers, kohya)
    tensors |= {f"{kohya_stem(*name)}.alpha": torch.tensor(alpha) for name, alpha in alphas.items()}
    before = {name: getattr(base_pipeline, name[0]).get_submodule(name[1]).weight.clone() for name in ALL}
    save_file(tensors, tmp_path / "lora.safetensors")
    fuse_lora(base_pipeline, tmp_path / "lora.safetensors", strength=STRENGTH)
    for name, (down, up) in layers.items():
        delta = (up.flatten(1) @ down.flatten(1)).reshape(before[name].shape)
        expected = before[name] + STRENGTH * alphas[name] / RANK * delta
        torch.testing.assert_close(getattr(base_pipeline, name[0]).get_submodule(name[1]).weight, expected, rtol=0, atol=2e-6)


def test_alpha_in_the_metadata_of_a_peft_file_is_honoured_as_diffusers_does(
    base_pipeline: Any, pristine_pipeline: Any, tmp_path: Path
) -> None:
    modules = [module for _, module in UNET]
    config = {"unet.r": RANK, "unet.lora_alpha": 2.0, "unet.target_modules": modules, "unet.alpha_pattern": {modules[3]: 9.0}}
    path = tmp_path / "lora.safetensors"
    save_file(spell(make_layers(base_pipeline, UNET), peft), path, metadata={"lora_adapter_metadata": json.dumps(config)})
    fuse_lora(base_pipeline, path, strength=STRENGTH)
    assert_same_bits(states(base_pipeline), fuse_with_diffusers(pristine_pipeline, path))


def test_alpha_of_an_adapter_config_beside_the_file_is_honoured(base_pipeline: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 32}))
    tensors = spell(make_layers(base_pipeline, UNET), with_prefix("base_model.model.", without_prefix(peft)))
    assert {layer.alpha for layer in parse(base_pipeline, tmp_path / "adapter_model.safetensors", tensors)} == {32.0}


def test_the_checkpoint_of_mini_loads_every_layer(base_pipeline: Any, checkpoint_dir: Path) -> None:
    path = checkpoint_dir / LORA_FILE
    down_keys = [key for key in load_file(path) if key.endswith("lora_down.weight")]
    assert fuse_lora(base_pipeline, path, strength=STRENGTH) == len(down_keys) > 0
    left = [module for name in COMPONENTS for module in getattr(base_pipeline, name).modules()]
    assert not any(isinstance(module, BaseTunerLayer) for module in left)


def test_strength_zero_changes_nothing(base_pipeline: Any, pristine_pipeline: Any, tmp_path: Path) -> None:
    save_file(spell(make_layers(base_pipeline, ALL), peft), tmp_path / "lora.safetensors")
    fuse_lora(base_pipeline, tmp_path / "lora.safetensors", strength=0.0)
    assert_same_bits(states(base_pipeline), states(pristine_pipeline))


KOHYA_STEM = kohya_stem(*UNET[0])


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({f"{KOHYA_STEM}.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
        ({f"{KOHYA_STEM}.lokr_w1": torch.ones(2, 2)}, "LoKr"),
        ({f"{KOHYA_STEM}.lora_mid.weight": torch.ones(2, 2)}, "Tucker"),
        ({f"{KOHYA_STEM}.oft_blocks": torch.ones(2, 2)}, "OFT"),
        ({f"{KOHYA_STEM}.dora_scale": torch.ones(2)}, "DoRA"),
        ({f"unet.{UNET[0][1]}.lora_magnitude_vector": torch.ones(2)}, "DoRA"),
        ({f"unet.{UNET[0][1]}.lora_B.bias": torch.ones(2)}, "biases"),
        ({"lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight": torch.ones(2, 2)}, "1 of its keys.*blocks_9"),
        ({f"{KOHYA_STEM}.diff": torch.ones(2, 2)}, "1 of its keys adapt nothing"),
        ({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 64)}, "2 of its keys adapt nothing"),
        ({peft(*UNET[0])[0]: torch.ones(2, 2)}, "adapt the same layer"),
        ({"lora_unet_mid_block_resnets_0_conv1.lora_down.weight": torch.ones(2, 2)}, "has no up half"),
        ({"lora_unet_mid_block_resnets_0_conv1.alpha": torch.tensor(1.0)}, "has no (up|down) half"),
        ({f"{KOHYA_STEM}.alpha": torch.tensor(0.0)}, "alpha of .* is 0.0"),
        ({f"{KOHYA_STEM}.alpha": torch.ones(2)}, "alpha of .* is nan"),
        ({kohya(*UNET[0])[0]: torch.ones(RANK, 7)}, "trained for another base"),
        ({kohya(*UNET[0])[1]: torch.ones(80, RANK + 1)}, "trained for another base"),
    ],
)
def test_what_cannot_be_loaded_right_is_refused_with_the_reason(
    pristine_pipeline: Any, tmp_path: Path, extra: dict[str, torch.Tensor], says: str
) -> None:
    tensors = spell(make_layers(pristine_pipeline, UNET), kohya, RANK) | extra
    with pytest.raises(WeightsInvalid, match=says) as caught:
        parse(pristine_pipeline, tmp_path / "lora.safetensors", tensors)
    assert "lora.safetensors" in caught.value.detail


@pytest.mark.parametrize("variant", ["use_dora", "use_rslora"])
def test_variants_that_only_the_metadata_tells_of_are_refused(pristine_pipeline: Any, tmp_path: Path, variant: str) -> None:
    tensors = spell(make_layers(pristine_pipeline, UNET), peft)
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{variant}": True})}
    with pytest.raises(WeightsInvalid, match=variant):
        parse(pristine_pipeline, tmp_path / "lora.safetensors", tensors, metadata)


def test_an_unreadable_configuration_is_refused(pristine_pipeline: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[1]")
    tensors = spell(make_layers(pristine_pipeline, UNET), peft)
    with pytest.raises(WeightsInvalid, match="PEFT configuration cannot be read"):
        parse(pristine_pipeline, tmp_path / "lora.safetensors", tensors)


def test_many_unknown_keys_are_counted_and_some_named(pristine_pipeline: Any, tmp_path: Path) -> None:
    tensors = {f"transformer.blocks.{index}.lora_A.weight": torch.ones(2, 2) for index in range(30)}
    with pytest.raises(WeightsInvalid, match=r"30 of its keys adapt nothing .*blocks\.4\.lora_A\.weight, \.\.\."):
        parse(pristine_pipeline, tmp_path / "flux.safetensors", tensors)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("changed", "layer unet.* differs from the file"),
        ("rescaled", "layer unet.* differs from the file"),
        ("missing", "1 did not load, and 0 loaded"),
        ("surplus", "0 did not load, and 1 loaded that are not in it"),
    ],
)
def test_the_check_after_loading_sees_every_kind_of_difference(
    base_pipeline: Any, tmp_path: Path, damage: str, says: str
) -> None:
    path = tmp_path / "lora.safetensors"
    layers = parse(base_pipeline, path, spell(make_layers(base_pipeline, ALL), peft))
    inject_layers(base_pipeline, path, layers)
    check_layers(base_pipeline, path, layers)
    module = base_pipeline.unet.get_submodule(layers[2].module)
    if damage == "changed":
        weight = module.lora_B[ADAPTER].weight
        weight.data[0, 0] = torch.nextafter(weight.data[0, 0], torch.tensor(9.0))
    elif damage == "rescaled":
        module.scaling[ADAPTER] *= 2
    checked = layers[:-1] if damage == "surplus" else layers
    if damage == "missing":
        base_pipeline.text_encoder_2.get_submodule("text_model.encoder.layers.2.self_attn").v_proj = torch.nn.Linear(64, 64)
    with pytest.raises(WeightsInvalid, match=says):
        check_layers(base_pipeline, path, checked)


@pytest.mark.parametrize(
    ("sgm", "module"),
    [
        ("input_blocks_0_0", "conv_in"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_4_1_transformer_blocks_0_attn1_to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
        ("input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
        ("input_blocks_8_1_transformer_blocks_9_ff_net_2", "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2"),
        ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
        ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_1_transformer_blocks_1_attn2_to_k", "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_k"),
        ("output_blocks_8_0_in_layers_2", "up_blocks.2.resnets.2.conv1"),
        ("label_emb_0_2", "add_embedding.linear_2"),
        ("out_2", "conv_out"),
    ],
)
def test_numbered_blocks_name_layers_of_the_full_size_unet(full_size_unet: Any, tmp_path: Path, sgm: str, module: str) -> None:
    weight = full_size_unet.get_submodule(module).weight
    tensors = {
        f"lora_unet_{sgm}.lora_down.weight": torch.zeros((2, *weight.shape[1:])),
        f"lora_unet_{sgm}.lora_up.weight": torch.zeros((weight.shape[0], 2, *(1 for _ in weight.shape[2:]))),
    }
    (layer,) = parse_layers(tmp_path / "lora.safetensors", tensors, {}, {"unet": full_size_unet})
    assert (layer.component, layer.module) == ("unet", module)


@pytest.fixture(scope="module")
def full_size_unet() -> Any:
    """SDXL's own UNet, 2.6 billion parameters that take no memory: shapes only."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
