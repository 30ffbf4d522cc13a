"""Inception's scores against torch-fidelity's own, on the same images, at random weights."""

import numpy as np
import pytest
import torch

from cmbench.core.loader import create
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import reference_from_features

fidelity = pytest.importorskip("torch_fidelity")


class Pixels(torch.utils.data.Dataset):
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.pixels[i]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of Inception's form: He-normal convolutions, batch norms calibrated on pictures."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    empty = tmp_path_factory.mktemp("inception") / "empty.pth"
    torch.save({}, empty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(empty)
        )
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    net.train()
    net(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))
    path = empty.with_name("weights.pth")
    torch.save(net.eval().state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_scores_are_those_of_calculate_metrics(weights):
    generator = torch.Generator().manual_seed(1)
    made = torch.randint(0, 256, (48, 3, 32, 32), dtype=torch.uint8, generator=generator)
    real = (torch.randint(0, 256, (40, 3, 32, 32), generator=generator) // 2 + 60).to(torch.uint8)
    peer = fidelity.calculate_metrics(
        input1=Pixels(made), input2=Pixels(real), cuda=False, isc=True, fid=True, kid=True,
        prc=True, kid_subset_size=30, kid_subsets=10, isc_splits=4, batch_size=16,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
        feature_layer_prc="2048", verbose=False, cache=False, save_cpu_ram=True,
    )  # fmt: skip
    extractor = create("features", {"name": "inception", "weights": str(weights)}).build(
        torch.device("cpu")
    )

    def features(pixels):
        parts = [extractor(block) for block in pixels.split(16)]
        return Features({k: np.concatenate([p[k].numpy() for p in parts]) for k in parts[0]})

    ours, reference = features(made), reference_from_features(features(real), "real")
    fid = create("metric", "frechet_distance").scores(ours, reference)["frechet_distance"]
    # Fewer images than features: the peer errs by some 1e-5 there (eigenvalues of a singular product).
    # Ours has folded batch norms: features differ by 1e-4 of their size.
    assert fid.value == pytest.approx(peer["frechet_inception_distance"], rel=5e-4)
    isc = create("metric", {"name": "inception_score", "splits": 4}).scores(ours, None)
    assert isc["inception_score"].value == pytest.approx(peer["inception_score_mean"], rel=1e-4)
    both = create("metric", "precision_recall").scores(ours, reference)
    assert both["precision"].value == pytest.approx(peer["precision"], abs=1.5 / 48)
    assert both["recall"].value == pytest.approx(peer["recall"], abs=1.5 / 40)
