"""Every official family under every sampler of its kind: models x samplers is a product."""

import pytest
import torch

from cmbench.core.loader import available, create, load
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.samplers.base import BoundGenerator

EDM = {
    "img_resolution": 8, "label_dim": 3, "model_type": "SongUNet", "model_channels": 16,
    "channel_mult": (1, 1), "num_blocks": 1, "attn_resolutions": (4,),
}  # fmt: skip
UNET = {
    "name": "openai_unet", "model_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1,
    "attention_resolutions": (2,),
}  # fmt: skip
IDDPM = {
    "image_size": 8, "model_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1,
    "attention_resolutions": (2,), "steps": 40, "num_classes": 3,
}  # fmt: skip
MODELS = {
    "edm": ("edm_official", EDM),
    "vp": ("edm_official", {**EDM, "precond": "VPPrecond"}),
    "ve": ("edm_official", {**EDM, "precond": "VEPrecond"}),
    "iddpm-by-edm": (
        "edm_official",
        {"img_resolution": 8, "label_dim": 3, "model_channels": 16, "channel_mult": (1, 1),
         "num_blocks": 1, "precond": "iDDPMPrecond"},
    ),
    "consistency": (
        "consistency_official", {"network": UNET, "shape": (3, 8, 8), "classes": 3}
    ),
    "teacher": (
        "consistency_official",
        {"network": UNET, "shape": (3, 8, 8), "classes": 3, "scalings": "edm"},
    ),
    "iddpm": ("iddpm_official", IDDPM),
}  # fmt: skip
PAIRS = [
    (model, item.name)
    for model, (family, _) in MODELS.items()
    for item in available("sampler")
    if load("sampler", item.name).accepts in load("model", family).makes
]


def short(name):
    """The sampler with few steps, where it has steps."""
    fields = load("sampler", name).model_fields
    return create("sampler", {"name": name, "steps": 3} if "steps" in fields else name)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_finite_images_and_counted_evaluations(model, name):
    family, config = MODELS[model]
    kind, sampler = load("model", family), short(name)
    torch.manual_seed(0)
    denoiser = kind(**config).build().to(memory_format=torch.channels_last)
    noise = Noise(0, range(2), denoiser.shape)
    bound = BoundGenerator(denoiser, sampler)
    with EvaluationCounter(bound.networks()) as counter:
        images = bound.generate(noise, torch.tensor([0, 2]))
    assert images.shape == (2, 3, 8, 8)
    assert bool(torch.isfinite(images).all())
    assert sampler.nfe() is None or counter.per_image(2) == sampler.nfe()


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_rounding_twice_is_rounding_once_and_rows_are_independent(model):
    family, config = MODELS[model]
    torch.manual_seed(0)
    denoiser = load("model", family)(**config).build()
    for p in denoiser.parameters():
        p.normal_(0, 0.05)
    sigma = torch.tensor([0.03, 1.0, 60.0], dtype=torch.float64)
    once = denoiser.round_sigma(sigma)
    assert torch.equal(denoiser.round_sigma(once), once)
    x, labels = torch.randn(3, 3, 8, 8).double(), torch.tensor([0, 1, 2])
    whole = denoiser(x, once, labels)
    for i in range(3):
        alone = denoiser(x[i : i + 1], once[i : i + 1], labels[i : i + 1])
        assert torch.allclose(alone, whole[i : i + 1], rtol=1e-4, atol=1e-4)
