"""The shape of Granule mini: SDXL's own classes at a hundredth of the size, written in diffusers' folder layout.

`build_checkpoint` writes it with seeded random weights. Training starts from the same shapes, and tests use the result
as a checkpoint that has every part and format of the real one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

MODELS = Path(__file__).resolve().parent.parent / "models"
TOKENIZERS = MODELS / "mini"
LORA_FILE = "rubber-tile-mini_sdxl_lora.safetensors"
EMBEDDINGS_FILE = "rubber-tile-mini_sdxl_embeddings.safetensors"
LORA_RANK = 8
LORA_ALPHA = 8
LORA_TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".conv2")
TOKEN_COUNT = 2

_VOCABULARY_SIZE = 49_408
_WIDTHS = (32, 64)
_Encoder = TypeVar("_Encoder", CLIPTextModel, CLIPTextModelWithProjection)


def build_text_encoder() -> CLIPTextModel:
    """Return encoder 1 (width 32) with weights from torch's current random state."""
    return _with_waves(CLIPTextModel(_text_config(_WIDTHS[0], "quick_gelu")))


def build_text_encoder_2() -> CLIPTextModelWithProjection:
    """Return encoder 2 (width 64, projected) with weights from torch's current random state."""
    return _with_waves(CLIPTextModelWithProjection(_text_config(_WIDTHS[1], "gelu")))


def build_unet() -> UNet2DConditionModel:
    """Return the four-level UNet; attention stands in the two lowest levels only, where tokens are few."""
    addition_time_embed_dim = 32
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(32, 48, 80, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        cross_attention_dim=sum(_WIDTHS),
        attention_head_dim=(2, 3, 5, 6),  # diffusers reads this field as the number of heads: 16 channels each
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=addition_time_embed_dim,
        projection_class_embeddings_input_dim=_WIDTHS[1] + 6 * addition_time_embed_dim,
    )


def build_vae(scaling_factor: float = 1.0) -> AutoencoderKL:
    """Return the autoencoder: 8 x smaller, four latent channels, no attention in its middle.

    `scaling_factor` is what latents are multiplied by to have a standard deviation near one.
    """
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,  # over few channels, narrow groups would take the mean colour of a one-colour tile away
        mid_block_add_attention=False,
        sample_size=1024,
        scaling_factor=scaling_factor,
        force_upcast=False,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Return the sampler the UNet is trained for: v-prediction on DDPM's linear betas, DPM-Solver++ on Karras sigmas.

    SDXL's own betas end at a noise 14.6 times the signal, in which the mean colour of a whole tile still shows, so that
    sampling from pure noise starts from a wrong mean. The linear betas end at 157 (Lin et al. 2023, arXiv:2305.08891,
    describe the fault), and v-prediction stays well conditioned there.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        beta_start=0.0001,
        beta_end=0.02,
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        use_karras_sigmas=True,
        final_sigmas_type="zero",
        timestep_spacing="trailing",
        steps_offset=0,
    )


def lora_modules(unet: UNet2DConditionModel) -> dict[str, torch.nn.Linear | torch.nn.Conv2d]:
    """Return the modules that the LoRA adapts, by their dotted path in the UNet."""
    return {
        name: module
        for name, module in unet.named_modules()
        if name.endswith(LORA_TARGETS) and isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def lora_shapes(module: torch.nn.Linear | torch.nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of (lora_down, lora_up) for a module: a convolution keeps its kernel in the down half."""
    if isinstance(module, torch.nn.Conv2d):
        return (LORA_RANK, module.in_channels, *module.kernel_size), (module.out_channels, LORA_RANK, 1, 1)
    return (LORA_RANK, module.in_features), (module.out_features, LORA_RANK)


def kohya_key(module_name: str) -> str:
    """Turn `down_blocks.2.attentions.0.proj` into `lora_unet_down_blocks_2_attentions_0_proj`, as kohya's trainer names it."""
    return "lora_unet_" + module_name.replace(".", "_")


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file that everybody may read: the library itself creates files of mode 0600."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    path.chmod(0o644)


def write_pipeline(pipeline: StableDiffusionXLPipeline, folder: Path) -> None:
    """Write a pipeline in diffusers' layout with the tokenizers as vocab.json and merges.txt, every file of mode 0644."""
    # By way of a draft: transformers would write the tokenizers in its own form, and `folder` may be where they come from.
    with TemporaryDirectory() as draft:
        pipeline.save_pretrained(draft, safe_serialization=True)
        for name in ("tokenizer", "tokenizer_2"):
            shutil.rmtree(Path(draft) / name)
            shutil.copytree(TOKENIZERS / name, Path(draft) / name)
        shutil.copytree(draft, folder, dirs_exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def assemble_pipeline(
    *,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    unet: UNet2DConditionModel,
) -> StableDiffusionXLPipeline:
    """Put trained or random parts together with the real CLIP tokenizers and mini's scheduler."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer", local_files_only=True),
        tokenizer_2=CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer_2", local_files_only=True),
        unet=unet,
        scheduler=build_scheduler(),
        add_watermarker=False,
    )


def build_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Write a complete checkpoint with random weights drawn from `seed`: base folder, LoRA and textual inversion.

    The LoRA and embedding files stand next to model_index.json under `LORA_FILE` and `EMBEDDINGS_FILE`. Needs about
    28 MB of disk (fp32) and a second. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = assemble_pipeline(
            vae=build_vae(),
            text_encoder=build_text_encoder(),
            text_encoder_2=build_text_encoder_2(),
            unet=build_unet(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_pipeline(pipeline, folder)
        lora: dict[str, torch.Tensor] = {}
        for name, module in lora_modules(pipeline.unet).items():
            down_shape, up_shape = lora_shapes(module)
            key = kohya_key(name)
            lora[f"{key}.lora_down.weight"] = 0.05 * torch.randn(down_shape)
            lora[f"{key}.lora_up.weight"] = 0.05 * torch.randn(up_shape)
            lora[f"{key}.alpha"] = torch.tensor(float(LORA_ALPHA))
        write_tensors(lora, folder / LORA_FILE)
        clip_l, clip_g = (0.02 * torch.randn(TOKEN_COUNT, width) for width in _WIDTHS)
        write_tensors({"clip_l": clip_l, "clip_g": clip_g}, folder / EMBEDDINGS_FILE)


def _with_waves(encoder: _Encoder) -> _Encoder:
    """Start the position embeddings as sines and cosines, and the token embeddings at the same size.

    "The number two tokens before this word" is then a rotation that attention finds in minutes; from CLIP's small random
    positions a share is not tied to its colour word for a long time.
    """
    tables = {
        name.rsplit(".", 2)[-2]: table for name, table in encoder.named_parameters() if name.endswith("_embedding.weight")
    }
    positions = tables["position_embedding"]
    count, width = positions.shape
    turns = torch.arange(count)[:, None] * torch.logspace(0.2, -1.8, width // 2)[None, :]
    with torch.no_grad():
        positions.copy_(0.1 * torch.cat([turns.sin(), turns.cos()], dim=1))
        tables["token_embedding"].mul_(4.0)
    return encoder


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=_VOCABULARY_SIZE,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=5,
        num_attention_heads=width // 8,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=0,
        # SDXL ships 2 here, which makes CLIP pool at the highest token id: at a trained token, if the prompt has one, and
        # that stands before the mix. The true id pools at the end of the text, so the pooled embedding states the mix.
        eos_token_id=_VOCABULARY_SIZE - 1,
        pad_token_id=1,
    )
