"""DDPM's family against diffusers as a peer, at other shapes than the published vectors have."""

import json

import pytest
import torch

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.nets.ddpm_unet import DDPMUNet
from cmbench.released.ddpm_names import from_ddpm
from cmbench.released.edm_openai_names import fill
from cmbench.samplers.ddim import DDIM
from cmbench.samplers.ddpm_ancestral import DDPMAncestral
from cmbench.samplers.multistep import MultiStep

DDPM_LIKE = {
    "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 2,
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D"), "attention_head_dim": None,
    "norm_num_groups": 8, "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1,
}  # fmt: skip
ADM_LIKE = {
    "sample_size": 8, "block_out_channels": (16, 16, 32), "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "attention_head_dim": 8, "norm_num_groups": 8, "attn_norm_num_groups": 8,
    "downsample_type": "resnet", "upsample_type": "resnet", "num_class_embeds": 5,
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
NETWORKS = {
    "ddpm": DDPM_LIKE,
    "heads": {**DDPM_LIKE, "attention_head_dim": 8, "layers_per_block": 1},
    "their defaults": {"sample_size": 16, "block_out_channels": (32, 32, 64, 64)},
    "labels": {**DDPM_LIKE, "num_class_embeds": 3, "in_channels": 1, "out_channels": 1},
    "no middle attention": {**DDPM_LIKE, "add_attention": False, "time_embedding_dim": 24},
    "adm": ADM_LIKE,
}


def peer(config, seed=0):
    """Diffusers' own network with every parameter random, zero-initialised ones too."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    torch.manual_seed(seed)
    net = diffusers.UNet2DModel(**config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            spread = 0.1 if value.ndim == 1 else value[0].numel() ** -0.5
            value.copy_(torch.randn_like(value) * spread + (name.endswith("norm.weight")))
    return net


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_networks_of_diffusers(kind):
    theirs = peer(NETWORKS[kind])
    config, side = theirs.config, theirs.config["sample_size"]
    classes = config["num_class_embeds"] or 0
    ours = DDPMUNet.of_config(config).build((config["in_channels"], side, side), classes).eval()
    fill(ours, from_ddpm(ours, theirs.state_dict()), where="")
    x, t = torch.randn(3, config["in_channels"], side, side), torch.tensor([0.0, 417.0, 999.0])
    labels = torch.tensor([0, 2, 1]) if classes else None
    want = theirs(x, t, class_labels=labels).sample
    assert torch.allclose(ours(x, t, labels), want, atol=3e-5 * float(want.abs().max()))


@torch.no_grad()
def test_the_first_ports_names_load_the_same_network():
    theirs = peer(DDPM_LIKE)
    ours = DDPMUNet.of_config(theirs.config).build((3, 8, 8)).eval()
    fill(ours, from_ddpm(ours, theirs.state_dict()), where="")
    again = DDPMUNet.of_config(theirs.config).build((3, 8, 8)).eval()
    renamed = {port_name(k, levels=2): as_port(k, v) for k, v in theirs.state_dict().items()}
    fill(again, from_ddpm(again, renamed), where="")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    assert torch.equal(ours(x, t), again(x, t))


def as_port(name, value):
    attention = "attentions" in name and name.endswith("weight") and "norm" not in name
    return value[:, :, None, None] if attention else value


def port_name(name, levels):
    """The port's name of a tensor of diffusers (its conversion script read backwards)."""
    words = name.split(".")
    if words[0] == "up_blocks":
        words[1] = str(levels - 1 - int(words[1]))
    if words[0] == "mid_block":
        number = {"resnets": f"block_{int(words[2]) + 1}", "attentions": "attn_1"}[words[1]]
        words[0:3] = ["mid", number]
    text = ".".join(words)
    for old, new in (
        ("time_embedding.linear_1", "temb.dense.0"), ("time_embedding.linear_2", "temb.dense.1"),
        ("conv_norm_out", "norm_out"), ("down_blocks", "down"), ("up_blocks", "up"),
        (".resnets.", ".block."), (".attentions.", ".attn."), (".downsamplers.0.", ".downsample."),
        (".upsamplers.0.", ".upsample."), ("conv_shortcut", "nin_shortcut"),
        ("time_emb_proj", "temb_proj"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
        ("to_v", "v"), ("to_out.0", "proj_out"),
    ):  # fmt: skip
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("family", "size"), [("ddpm", 35_746_307), ("consistency_hub", 295_899_267)]
)
def test_the_published_networks_have_their_sizes(family, size):
    with torch.device("meta"):
        built = load("model", family)().build()
    assert sum(p.numel() for p in built.net.parameters()) == size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type: fourier"),
        ({"down_block_types": ("SkipDownBlock2D", "DownBlock2D")}, "SkipDownBlock2D"),
        ({"center_input_sample": True}, "center_input_sample"),
        ({"new_option": 3}, "new_option"),
        ({"attn_norm_num_groups": 4}, "attn_norm_num_groups: 4"),
    ],
)
def test_a_network_that_is_not_known_is_refused_by_name(change, said):
    with pytest.raises(UserError, match=said):
        DDPMUNet.of_config({**DDPM_LIKE, **change}, where="config.json")


def pipeline(folder, scheduler, config=DDPM_LIKE):
    """A folder as `save_pretrained` leaves it, and the pipeline's parts."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    theirs = peer(config)
    if hasattr(scheduler, "add_noise") and "CM" in type(scheduler).__name__:
        made = diffusers.ConsistencyModelPipeline(theirs, scheduler)
    else:
        made = diffusers.DDPMPipeline(theirs, scheduler)
    made.save_pretrained(folder)
    return theirs


def opened(folder, family="ddpm"):
    kind = load("model", family)
    weights, told = kind.opened(folder)
    model = kind(**told)
    module = model.build()
    model.load(module, weights)
    return module


PROCESSES = {
    "trailing": {"timestep_spacing": "trailing"},
    "linspace small": {"timestep_spacing": "linspace", "variance_type": "fixed_small"},
    "offset": {"steps_offset": 1, "variance_type": "fixed_large"},
    "cosine v": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    "scaled": {"beta_schedule": "scaled_linear", "clip_sample": False},
    "sigmoid x0": {"beta_schedule": "sigmoid", "prediction_type": "sample"},
    "clipped wide": {"clip_sample_range": 2.0, "num_train_timesteps": 777},
    "given": {
        "trained_betas": [0.01 * (i + 1) for i in range(40)],
        "num_train_timesteps": 40,
    },
}


@pytest.mark.parametrize("kind", PROCESSES)
@torch.no_grad()
def test_the_folders_scheduler_is_followed(tmp_path, kind):
    """`ddpm_ancestral` without settings is what diffusers' pipeline does with its own."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    scheduler = diffusers.DDPMScheduler(**PROCESSES[kind])
    theirs = pipeline(tmp_path, scheduler)
    draws = [torch.randn(2, 3, 8, 8) for _ in range(9)]
    scheduler.set_timesteps(7)
    x, left = draws[0], iter(draws[1:])
    for t in scheduler.timesteps:
        x = replayed(scheduler, theirs(x, t).sample, t, x, left)
    found = DDPMAncestral(steps=7).sample(opened(tmp_path), ReplayNoise(draws))
    assert torch.allclose(found.float(), x, atol=2e-4 * max(1.0, float(x.abs().max())))


def replayed(scheduler, output, t, x, left):
    """One step of their scheduler with the next recorded draw."""
    import diffusers.schedulers.scheduling_ddpm as module

    before = module.randn_tensor
    module.randn_tensor = lambda *args, **more: next(left)
    try:
        return scheduler.step(output, t, x).prev_sample
    finally:
        module.randn_tensor = before


@pytest.mark.parametrize("kind", ["trailing", "linspace small", "scaled"])
@pytest.mark.parametrize("eta", [0.0, 0.4])
@torch.no_grad()
def test_ddim_on_the_grids_of_diffusers(tmp_path, kind, eta):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    told = {k: v for k, v in PROCESSES[kind].items() if k != "variance_type"}
    scheduler = diffusers.DDIMScheduler(**told, set_alpha_to_one=False)
    theirs = pipeline(tmp_path, scheduler)
    draws = [torch.randn(2, 3, 8, 8) for _ in range(8)]
    scheduler.set_timesteps(7)
    x = draws[0]
    for i, t in enumerate(scheduler.timesteps):
        more = {"eta": eta, "variance_noise": draws[i + 1]} if eta else {}
        x = scheduler.step(theirs(x, t).sample, t, x, **more).prev_sample
    denoiser = opened(tmp_path)
    clip = told.get("clip_sample", True)
    grid = told.get("timestep_spacing", "leading")
    sampler = DDIM(steps=7, eta=eta, grid=grid, clip=clip, rederive=False)
    found = sampler.sample(denoiser, ReplayNoise(draws))
    assert torch.allclose(found.float(), x, atol=2e-4 * max(1.0, float(x.abs().max())))


@torch.no_grad()
def test_consistency_pipelines(tmp_path):
    """Two steps of diffusers' consistency pipeline are `multistep` at the same points."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_max=70.0)
    theirs = pipeline(tmp_path, scheduler, ADM_LIKE)
    draws = [torch.randn(2, 3, 8, 8) for _ in range(3)]
    labels = torch.tensor([1, 4])
    scheduler.set_timesteps(timesteps=[22, 0])
    x, left = draws[0] * scheduler.init_noise_sigma, iter(draws[1:])
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = theirs(scaled.float(), t, class_labels=labels).sample
        x = consistency_step(scheduler, output, t, x, left)
    denoiser = opened(tmp_path, "consistency_hub")
    assert denoiser.sigma_max == 70.0 and denoiser.classes == 5
    sampler = MultiStep(indices=(0, 22, 39), grid=40)
    found = sampler.sample(denoiser, ReplayNoise(draws), labels)
    assert torch.allclose(found.float(), x.float(), atol=1e-3)


def consistency_step(scheduler, output, t, x, left):
    import diffusers.schedulers.scheduling_consistency_models as module

    before = module.randn_tensor
    module.randn_tensor = lambda *args, **more: next(left)
    try:
        return scheduler.step(output, t, x).prev_sample
    finally:
        module.randn_tensor = before


def test_a_hub_name_is_looked_for_in_the_cache(tmp_path, monkeypatch):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    kind = load("model", "ddpm")
    with pytest.raises(Pending) as waiting:
        kind.of_folder("google/ddpm-cifar10-32")
    assert "hf download google/ddpm-cifar10-32" in str(waiting.value.command)
    place = tmp_path / "hub" / "models--google--ddpm-cifar10-32"
    pipeline(place / "snapshots" / "abc", diffusers.DDPMScheduler())
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    assert kind.of_folder("google/ddpm-cifar10-32").shape == (3, 8, 8)


def test_a_scheduler_that_is_not_known_is_refused_by_name(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    pipeline(tmp_path, diffusers.DDPMScheduler())
    path = tmp_path / "scheduler" / "scheduler_config.json"
    told = json.loads(path.read_text())
    for change, said in (
        ({"thresholding": True}, "thresholding: True"),
        ({"beta_schedule": "laplace"}, "beta_schedule: laplace"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ):
        path.write_text(json.dumps({**told, **change}))
        with pytest.raises(UserError, match=said):
            load("model", "ddpm").of_folder(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"no scheduler_config\.json"):
        load("model", "ddpm").of_folder(tmp_path)
