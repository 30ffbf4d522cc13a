"""Extractors: the right pictures, the same features in any batch, parity of Inception's module."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import nn

from cmbench.core.errors import Pending
from cmbench.core.loader import create
from cmbench.features.digits_classifier import train_digits_classifier

CPU = torch.device("cpu")


def test_efficientnet_sees_a_palace_and_a_daisy():
    crops = [image[:, 106:533][:427] for image in load_sample_images().images]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    net = create("features", {"name": "efficientnet_lite0", "size": 224}).build(CPU)
    assert net(pixels)["logits"].argmax(1).tolist() == [698, 985]  # ImageNet: palace, daisy


def test_efficientnet_does_not_depend_on_the_batch():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 1, 16, 16), generator=draw, dtype=torch.uint8)
    net = create("features", {"name": "efficientnet_lite0", "size": 64}).build(CPU)
    torch.testing.assert_close(
        net(pixels)["pool"][1:2], net(pixels[1:2])["pool"], rtol=1e-4, atol=1e-4
    )


def test_digits_classifier_is_its_recipe(tmp_path):
    data = load_digits()
    pixels = torch.from_numpy(np.round(data.images * (255 / 16)).astype(np.uint8)[:, None])
    extractor = create("features", "digits_classifier").build(CPU)
    held = np.arange(len(pixels)) % 5 == 4
    right = extractor(pixels)["logits"].argmax(1).numpy() == data.target
    assert right[held].mean() == pytest.approx(train_digits_classifier())
    assert right[held].mean() > 0.95


def test_inception_without_weights_waits(monkeypatch, tmp_path):
    monkeypatch.delenv("CMBENCH_INCEPTION", raising=False)
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path))
    with pytest.raises(Pending, match="cmbench assets fetch inception-2015-12-05"):
        create("features", "inception").weights_digest()


@pytest.mark.slow
def test_inception_is_torch_fidelitys_module(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Peer

    path = tmp_path / "w.pth"
    torch.save({}, path)
    with monkeypatch.context() as patch:
        patch.setattr(Peer, "load_state_dict", lambda self, state: None)
        net = Peer("x", ["2048"], feature_extractor_weights_path=str(path))
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    net.train()(pixels)
    torch.save(net.state_dict(), path)
    peer = Peer("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
    ours = create("features", {"name": "inception", "weights": str(path)}).build(CPU)(pixels)
    pool, logits = peer(pixels)
    # Folded batch norms, another order of sums and the resize as products: 1e-4 of a feature.
    assert float((ours["pool"] - pool).abs().max() / pool.abs().max()) < 1.1e-4
    assert float((ours["logits"] - logits).abs().max() / logits.abs().max()) < 1.1e-4
    seen = []
    peer.Mixed_6d.branch1x1.register_forward_hook(lambda module, given, out: seen.append(out))
    peer(pixels)
    spatial = seen[0][:, :7].permute(0, 2, 3, 1).flatten(1)
    assert float((ours["spatial"] - spatial).abs().max() / spatial.abs().max()) < 1.1e-4
    assert ours["spatial"].shape == (6, 2023)
