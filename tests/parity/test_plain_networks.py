"""Every kind of network of every official family against a plain re-computation of it.

The authors' vectors hold one or two networks of each family; a loader can be wrong in silence
for the others wherever two tensors have one shape. The plain networks write a checkpoint at
random weights in the authors' names, which is then loaded as a released file is.
"""

import pytest
import torch
from plain_parts import Tensors
from plain_refinenet import RefineNet
from plain_score_sde import ScoreNet
from plain_unets import cold_unet, ddpm_unet, openai_unet, song_unet
from safetensors.torch import save_file

from cmbench.core.loader import load

T = torch.tensor


def images(side, channels=3, count=3):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, channels, side, side, generator=generator)


def agree(got, want):
    """To rounding; a broken network is off by as much as its output."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 3e-5 * float(want.abs().max())


def filled(model, path):
    denoiser = model.build()
    model.load(denoiser, path)
    return denoiser


NCSN = {
    "CondRefineNetDilated": ({}, 8),
    "CondRefineNetDilated at 28 pixels": ({"channels": 1}, 28),
    "NCSNv2": ({"ema": True}, 16),
    "NCSNv2 relu": ({"ema": True, "nonlinearity": "ReLU"}, 8),
    "NCSNv2 lrelu": ({"ema": True, "nonlinearity": "LReLU"}, 8),
    "NCSNv2 swish": ({"ema": True, "nonlinearity": "swish"}, 8),
    "NCSNv2Deeper": ({"ema": True}, 16),
    "NCSNv2Deepest": ({"ema": True}, 16),
    "NCSNv2Deepest at 24 pixels": ({"ema": True}, 24),
}


@pytest.mark.parametrize("name", NCSN)
@torch.no_grad()
def test_ncsn(name, tmp_path):
    told, side = NCSN[name]
    kind, channels = name.split(" ")[0], told.get("channels", 3)
    first, tensors, index = kind.startswith("Cond"), Tensors(), T([2, 0, 1])
    activation = told.get("nonlinearity", "elu").lower()
    plain = RefineNet(tensors, 6, levels=5 if first else 0, activation=activation)
    depth = {"NCSNv2Deeper": "deeper", "NCSNv2Deepest": "deepest"}.get(kind, "base")
    x = images(side, channels)
    want = plain(x, index, depth)
    raw = {f"module.{k}": v for k, v in tensors.items()}
    torch.save([raw, {}], tmp_path / "checkpoint.pth")
    config = {
        "data": {"image_size": side, "channels": channels, "logit_transform": False},
        "model": {"ngf": 6, "num_classes": 5, "sigma_begin": 2, "sigma_end": 0.01, **told},
    }
    model = load("model", "ncsn").of_config(config, kind)
    agree(filled(model, tmp_path / "checkpoint.pth").net(2 * x - 1, index), want)


SCORE_SDE = {
    "VE continuous": {"fir": True, "progressive_input": "residual", "embedding_type": "fourier"},
    "VE discrete": {"fir": True, "progressive_input": "residual"},
    "256 pixels": {"fir": True, "progressive": "output_skip", "progressive_input": "input_skip",
                   "embedding_type": "fourier", "ch_mult": (1, 1, 2)},
    "256 pixels, unfiltered": {"progressive": "output_skip", "progressive_input": "input_skip"},
    "DDPM++": {},
    "deep DDPM++": {"num_res_blocks": 3},
    "DDPM blocks": {"resblock_type": "ddpm"},
    "without rescaling": {"skip_rescale": False, "fir": True},
    "DDPM": {"family": "ddpm", "nf": 32},
    "DDPM without convolutions": {"family": "ddpm", "nf": 32, "resamp_with_conv": False},
}  # fmt: skip


def in_module_order(tensors):
    """Names as the authors' `parameters()` has them: by module, then as its parts are made."""
    parts = ("W", "GroupNorm_0", "Conv_0", "Conv2d_0", "Dense_0", "GroupNorm_1", "Conv_1",
             "Conv_2", "NIN_0", "NIN_1", "NIN_2", "NIN_3")  # fmt: skip

    def place(name):
        _, number, *rest = name.split(".")
        return int(number), parts.index(rest[0]) if rest[0] in parts else 0

    return sorted(tensors, key=place)


@pytest.mark.parametrize("name", SCORE_SDE)
@torch.no_grad()
def test_score_sde(name, tmp_path):
    told = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,),
            **SCORE_SDE[name]}  # fmt: skip
    x, label, tensors = 2 * images(8) - 1, T([3.0, 41.0, 998.5]), Tensors()
    want = ScoreNet(tensors, **told)(x, label)
    fourier = told.get("embedding_type") == "fourier"
    trained = [n for n in in_module_order(tensors) if not n.endswith("all_modules.0.W")]
    raw = {f"module.{k}": v if k not in trained else v + 1 for k, v in tensors.items()}
    ema = {"decay": 0.999, "num_updates": 1, "shadow_params": [tensors[n] for n in trained]}
    held = {"optimizer": {}, "model": raw, "ema": ema, "step": 1}
    torch.save(held, tmp_path / "checkpoint.pth")
    family = told.pop("family", "ncsnpp")
    config = {"data": {"image_size": 8, "num_channels": 3, "centered": True},
              "model": {"name": family, **told}, "training": {"sde": "vesde"}}  # fmt: skip
    denoiser = filled(load("model", "score_sde").of_config(config), tmp_path / "checkpoint.pth")
    agree(denoiser.net(x, label.log() if fourier else label), want)


OPENAI = {
    "ImageNet-64": {"use_scale_shift_norm": True, "resblock_updown": True,
                    "num_head_channels": 16, "num_classes": 4},
    "without labels": {"resblock_updown": True, "num_heads": 2},
    "added embedding": {"num_heads": 4, "num_heads_upsample": 2, "num_classes": 4},
    "strided": {"use_scale_shift_norm": True, "num_heads": 2},
    "averages": {"conv_resample": False, "num_heads": 1},
    "three levels": {"channel_mult": [1, 1, 2], "attention_resolutions": [2, 4],
                     "num_res_blocks": 2, "num_heads": 4},
}  # fmt: skip
WIDE = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "in_channels": 3,
        "attention_resolutions": [2], "use_scale_shift_norm": False, "num_heads": 1}  # fmt: skip


@pytest.mark.parametrize("name", OPENAI)
@pytest.mark.parametrize("family", ["consistency_official", "iddpm_official"])
@torch.no_grad()
def test_openai(family, name, tmp_path):
    improved = family == "iddpm_official"
    told = {**WIDE, "out_channels": 6 if improved else 3, **OPENAI[name]}
    if improved and not {"resblock_updown", "num_head_channels"}.isdisjoint(told):
        told.pop("resblock_updown", None)
        told.pop("num_head_channels", None)
    x, t, tensors = 2 * images(8) - 1, T([0.0, 17.5, 900.0]), Tensors()
    labels = T([3, 0, 2]) if "num_classes" in told else None
    order = "heads" if improved else "three"
    want = openai_unet(tensors, x, t, labels, order=order, **told)
    torch.save(dict(tensors), tmp_path / "model.pt")
    kind = load("model", family)
    model = kind.of_unet(told, 8) if improved else kind.of_unet({**told, "image_size": 8})
    agree(filled(model, tmp_path / "model.pt").net(x, t, labels), want)


SONG = {
    "DDPM++": {},
    "NCSN++": {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
               "resample_filter": [1, 3, 3, 1]},
    "skips": {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]},
    "unfiltered skips": {"encoder_type": "skip", "decoder_type": "skip", "num_blocks": 2},
    "residual in, skips out": {"encoder_type": "residual", "decoder_type": "skip",
                               "channel_mult": [1, 2, 2]},
}  # fmt: skip


@pytest.mark.parametrize("name", SONG)
@torch.no_grad()
def test_edm_song_unet(name, tmp_path):
    told = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
            "attn_resolutions": [4], **SONG[name]}  # fmt: skip
    x, noise, tensors = 2 * images(8) - 1, T([-1.2, 0.1, 1.1]), Tensors()
    want = song_unet(tensors, x, noise, **told)
    save_file({f"model.{k}": v for k, v in tensors.items()}, tmp_path / "edm.safetensors")
    model = load("model", "edm_official")(img_resolution=8, model_type="SongUNet", **told)
    agree(filled(model, tmp_path / "edm.safetensors").net(x, noise), want)


COLD = {
    "Unet": {"dim": 8, "dim_mults": [1, 2, 2]},
    "UnetConvNextBlock": {"dim": 8, "dim_mults": [1, 2], "out_dim": 3},
    "Unet without the severity": {"dim": 8, "dim_mults": [1, 2, 2, 4], "with_time_emb": False},
    "Unet residual": {"dim": 8, "dim_mults": [1, 3], "residual": True},
    "Model": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 2, "attn_resolutions": [4]},
    "UnetResNetBlock": {"ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1,
                        "attn_resolutions": [8, 2]},
    "Model by averages": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
                          "attn_resolutions": [4], "resamp_with_conv": False},
}  # fmt: skip


@pytest.mark.parametrize("name", COLD)
@torch.no_grad()
def test_cold(name, tmp_path):
    told, kind = COLD[name], name.split(" ")[0]
    x, severity, tensors = 2 * images(8) - 1, T([0, 5, 2]), Tensors()
    if "dim" in told:
        plain = {k: v for k, v in told.items() if k != "with_time_emb"}
        timed = told.get("with_time_emb", True)
        want = cold_unet(tensors, x, severity.float() if timed else None, **plain)
    else:
        plain = {k: v for k, v in told.items() if k != "resamp_with_conv"}
        learned = told.get("resamp_with_conv", True)
        want = ddpm_unet(tensors, x, severity.float(), learned=learned, **plain)
    state = {f"module.denoise_fn.{k}": v for k, v in tensors.items()}
    torch.save({"step": 1, "model": state, "ema": state}, tmp_path / "model.pt")
    model = load("model", "cold").of_official(
        kind, told, shape=(3, 8, 8), degradation={"name": "desaturate", "levels": 6}
    )
    restorer = filled(model, tmp_path / "model.pt")
    agree(restorer(x, severity + 1), want)


@torch.no_grad()
def test_the_first_port_of_ddpm(tmp_path):
    """Its file tells nothing: a card names the network by diffusers' fields."""
    x, t, tensors = 2 * images(8) - 1, T([0.0, 400.0, 999.0]), Tensors()
    told = {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": [4]}
    want = ddpm_unet(tensors, x, t, **told)
    save_file(dict(tensors), tmp_path / "model.safetensors")
    network = {
        "name": "ddpm_unet", "block_out_channels": [32, 64, 64], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }  # fmt: skip
    model = load("model", "ddpm")(network=network, shape=(3, 8, 8))
    agree(filled(model, tmp_path / "model.safetensors").net(x, t), want)
