"""DINOv2 and CLIP at random weights of the official layout, against timm and transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.assets.catalogue import find_asset
from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create
from cmbench.features._vision_transformer import VisionTransformer, clip_layout, dinov2_layout

CPU = torch.device("cpu")


def _timm(size: int = 56):
    timm = pytest.importorskip("timm", reason="timm, the independent implementation, is not here")
    torch.manual_seed(0)
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=14, embed_dim=128, depth=2, num_heads=2, init_values=0.3,
        num_classes=0, global_pool="token",
    ).eval()  # fmt: skip
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return net


def test_dinov2_is_timm_s_network():
    net = _timm()
    state = {**net.state_dict(), "mask_token": torch.zeros(1, 128)}
    ours = VisionTransformer.of(*dinov2_layout(state)).eval()
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net(x), rtol=1e-4, atol=1e-5)


def test_positions_on_another_grid_keep_what_does_not_vary():
    state = dict(_timm().state_dict())
    state["pos_embed"][:, 1:] = torch.arange(128.0)
    net = VisionTransformer.of(*dinov2_layout(state))
    places = net._places((3, 2))
    assert places.shape == (7, 128)
    torch.testing.assert_close(places[1:], torch.arange(128.0).expand(6, 128))
    # A ramp along one side stays one: DINOv2's code takes a grid 0.1 larger, so it is not at 0.
    state["pos_embed"][:, 1:] = torch.arange(16.0)[None, :, None] % 4
    ramp = VisionTransformer.of(*dinov2_layout(state))._places((4, 4))  # its own grid: untouched
    torch.testing.assert_close(ramp[1:, 0], torch.arange(16.0) % 4)


def test_clip_is_transformers_network():
    transformers = pytest.importorskip(
        "transformers", reason="transformers, the independent implementation, is not here"
    )
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=32,
    )  # fmt: skip
    net = transformers.CLIPVisionModelWithProjection(config).eval()
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.2)
    ours = VisionTransformer.of(*clip_layout(net.state_dict())).eval()
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net(x).image_embeds, rtol=1e-4, atol=1e-4)


def test_weights_come_from_the_catalogue_s_file(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path))
    for name in ("dinov2", "clip"):
        with pytest.raises(Pending) as told:
            create("features", name).weights_digest()
        asset = find_asset(str(told.value.command).split()[-1])
        assert str(asset.url).startswith("https://")
    asset = find_asset("dinov2-vitl14")
    path = tmp_path / "assets" / asset.file
    path.parent.mkdir()
    torch.save(_timm().state_dict(), path)
    made = create("features", {"name": "dinov2", "size": 56})
    assert made.weights_digest() == file_sha256(path)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8))
    pool = made.build(CPU)(pixels)["pool"]
    torch.testing.assert_close(
        pool[1:2], made.build(CPU)(pixels[1:2])["pool"], rtol=1e-4, atol=1e-4
    )
    path.with_name(path.name + ".sha256").write_text("0" * 64 + "\n")
    with pytest.raises(UserError, match="damaged"):
        made.build(CPU)


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_a_file_that_is_not_the_network_is_refused(tmp_path, name):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="does not hold"):
        create("features", {"name": name, "weights": path}).build(CPU)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(UserError, match="plain state dict"):
        create("features", {"name": name, "weights": path}).build(CPU)
