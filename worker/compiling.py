"""`torch.compile` of what a render spends its time in, where the manifest asks for it.

Shapes are static: a model draws one size, with guidance or without, and every shape is met in the warm-up. What was compiled
is kept by torch on disk (`TORCHINDUCTOR_CACHE_DIR`), so that the next start finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import StableDiffusionXLPipeline

from shared.manifest import Render


def pays(render: Render, device: torch.device) -> bool:
    """Whether a model is to be compiled: the manifest asks for it, and the device is one where it is worth its minutes."""
    return render.compile and device.type == "cuda"


def compile_models(pipeline: StableDiffusionXLPipeline, *, backend: str = "inductor", mode: str = "default") -> None:
    """Have UNet and VAE decoder compiled at their first call. They stay the same modules, with the same weights."""
    # A backend of one's own knows no modes.
    options = {} if mode == "default" else {"mode": mode}
    pipeline.unet.compile(backend=backend, dynamic=False, **options)
    pipeline.vae.decoder.compile(backend=backend, dynamic=False, **options)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled models as they were written, inside the block: for the rare picture that changes their layers."""
    with torch.compiler.set_stance("force_eager"):
        yield
