from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.errors import ManifestInvalid, ModelUnknown, PaletteInvalid
from shared.manifest import load_catalog, load_manifest
from shared.settings import REPOSITORY

MODELS = REPOSITORY / "models"
V45_VERSION = "763970a6702524ff048dd130709e255581912c8a4ab516db4520788f70b84e30"
V45 = (MODELS / "rubber-tile-lora-v45.toml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shipped palette and the manifest of v45."""
    shutil.copy(MODELS / "palette.toml", tmp_path)
    shutil.copy(MODELS / "rubber-tile-lora-v45.toml", tmp_path)
    return tmp_path


def changed(folder: Path, old: str, new: str) -> Path:
    assert old in V45
    path = folder / "rubber-tile-lora-v45.toml"
    path.write_text(V45.replace(old, new), encoding="utf-8")
    return path


def test_v45_is_what_the_old_service_ran() -> None:
    manifest = load_manifest(MODELS / "rubber-tile-lora-v45.toml")
    assert (manifest.slug, manifest.version) == ("nauslava/rubber-tile-lora-v45", V45_VERSION)
    assert manifest.lora is not None and manifest.textual_inversion is not None
    assert (manifest.lora.strength, manifest.lora.size_bytes) == (0.7, 101_961_928)
    assert manifest.textual_inversion.tokens == ("<s0>", "<s1>")
    render = manifest.render
    assert (render.num_inference_steps, render.guidance_scale, render.width_px, render.height_px) == (20, 7.0, 1024, 1024)
    assert (render.scheduler.algorithm_type, render.scheduler.use_karras_sigmas) == ("dpmsolver++", True)
    assert manifest.hub_id is None
    assert len(manifest.colors.colors) == 29


def test_every_shipped_manifest_can_be_ordered_from() -> None:
    catalog = load_catalog(MODELS)
    assert {"nauslava/rubber-tile-lora-v45", "granule/rubber-tile-mini"} <= {manifest.slug for manifest in catalog.models}
    for manifest in catalog.models:
        assert manifest.textual_inversion is None or all(
            token in manifest.prompt.trigger for token in manifest.textual_inversion.tokens
        )


def test_weights_are_looked_up_beside_the_manifest_unless_a_setting_says_otherwise(folder: Path) -> None:
    manifest = load_manifest(folder / "rubber-tile-lora-v45.toml")
    assert manifest.path_of("x.safetensors") == folder / "x.safetensors"
    assert manifest.path_of("x.safetensors", Path("/weights")) == Path("/weights/x.safetensors")
    assert manifest.path_of("/abs/x.safetensors", Path("/weights")) == Path("/abs/x.safetensors")


def test_a_base_on_the_hub_is_named_as_such(folder: Path) -> None:
    path = changed(folder, 'base = "stable-diffusion-xl-base-1.0"', 'base = "hub:stabilityai/stable-diffusion-xl-base-1.0"')
    assert load_manifest(path).hub_id == "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('owner = "nauslava"', 'owner = "Nau Slava"', "owner"),
        (V45_VERSION, "763970a6", "version"),
        ("strength = 0.7", "strength = 7", "lora.strength"),
        ("strength = 0.7", "strenght = 0.7", "lora.strenght"),
        ('tokens = ["<s0>", "<s1>"]', "tokens = []", "textual_inversion.tokens"),
        ("{prompt}, photo", "photo", "{prompt} exactly once"),
        ("{prompt}, photo", "{prompt}, {prompt}, photo", "{prompt} exactly once"),
        ('trigger = "ohwx_rubber_tile', 'trigger = "TOK', "trigger exactly once"),
        ("width_px = 1024", "width_px = 1020", "render.width_px"),
        ("num_inference_steps = 20", "num_inference_steps = 0", "render.num_inference_steps"),
        ('dtype = "bfloat16"', 'dtype = "int8"', "render.dtype"),
        ("vae_slicing = true", "vae_slicing = true\nvae_tiles = 1", "render.vae_tiles"),
        ('visibility = "private"', "visibility = ", "rubber-tile-lora-v45.toml"),
    ],
)
def test_a_wrong_manifest_is_refused_by_file_and_key(folder: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        load_manifest(changed(folder, old, new))
    assert named in caught.value.detail
    assert "rubber-tile-lora-v45.toml" in caught.value.detail


def test_a_missing_manifest_or_palette_is_refused(folder: Path) -> None:
    with pytest.raises(ManifestInvalid, match="none.toml"):
        load_manifest(folder / "none.toml")
    (folder / "palette.toml").unlink()
    with pytest.raises(PaletteInvalid, match="palette.toml"):
        load_manifest(folder / "rubber-tile-lora-v45.toml")


def test_a_model_is_found_by_any_of_its_names() -> None:
    catalog = load_catalog(MODELS)
    v45 = catalog.by_slug("nauslava/rubber-tile-lora-v45")
    for reference in (V45_VERSION, f"{v45.slug}:{V45_VERSION}", v45.slug):
        assert catalog.by_version(reference) is v45


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "x",
        "0" * 64,
        "nauslava/none",
        f"granule/rubber-tile-mini:{V45_VERSION}",
        "nauslava/rubber-tile-lora-v45:",
        f":{V45_VERSION}:",
    ],
)
def test_an_unknown_model_is_refused(reference: str) -> None:
    with pytest.raises(ModelUnknown) as caught:
        load_catalog(MODELS).by_version(reference)
    assert caught.value.field in ("model", "version")


def test_an_alias_serves_a_hard_coded_version_with_another_model() -> None:
    catalog = load_catalog(MODELS, [f"{V45_VERSION}=granule/rubber-tile-mini"])
    assert catalog.by_version(V45_VERSION).slug == "granule/rubber-tile-mini"
    for alias in (V45_VERSION, f"{V45_VERSION}=granule/none", "="):
        with pytest.raises(ManifestInvalid, match="version alias"):
            load_catalog(MODELS, [alias])


def test_two_models_cannot_share_a_version_and_a_folder_cannot_be_empty(folder: Path, tmp_path: Path) -> None:
    (folder / "copy.toml").write_text(V45.replace("rubber-tile-lora-v45", "copy"), encoding="utf-8")
    with pytest.raises(ManifestInvalid, match="share a name or a version"):
        load_catalog(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestInvalid, match="holds no model manifest"):
        load_catalog(tmp_path / "empty")
