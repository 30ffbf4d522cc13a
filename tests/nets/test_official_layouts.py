"""Official file layouts, written here from random weights: names, orders, refusals, sizes."""

import pickle
import re
import sys
import types

import msgpack
import numpy as np
import pytest
import torch
from torch import nn

from cmbench.api import fill, from_edm, from_openai
from cmbench.assets.catalogue import find_asset
from cmbench.cards.cards import list_cards
from cmbench.core.errors import UserError
from cmbench.core.loader import create, load

WIDE = {
    "model_channels": 128,
    "channel_mult": (1, 1),
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}


def randomise(module, seed=0):
    """Random weights everywhere, the zero-initialised included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1) * 0.5)
    return module


def openai_names(state):
    """A state of ours as consistency_models names it, by its own rules for one level of blocks.

    enc: conv, block | down, block; dec: in0, in1, block, block | up, block, block.
    """
    places = {
        "enc.8x8_conv": ("input_blocks.0", 0), "enc.8x8_block0": ("input_blocks.1", 0),
        "enc.4x4_down": ("input_blocks.2", 0), "enc.4x4_block0": ("input_blocks.3", 0),
        "dec.4x4_in0": ("middle_block", 0), "dec.4x4_in1": ("middle_block", 2),
        "dec.4x4_block0": ("output_blocks.0", 0), "dec.4x4_block1": ("output_blocks.1", 0),
        "dec.8x8_up": ("output_blocks.1", 2), "dec.8x8_block0": ("output_blocks.2", 0),
        "dec.8x8_block1": ("output_blocks.3", 0),
    }  # fmt: skip
    parts = {
        "norm0": "in_layers.0", "conv0": "in_layers.2", "affine": "emb_layers.1",
        "norm1": "out_layers.0", "conv1": "out_layers.3", "skip": "skip_connection",
    }  # fmt: skip
    attention = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}
    fixed = {
        "embed.map_layer0": "time_embed.0", "embed.map_layer1": "time_embed.2",
        "dec.8x8_aux_norm": "out.0", "dec.8x8_aux_conv": "out.2",
    }  # fmt: skip
    found = {}
    for name, value in state.items():
        head, _, leaf = name.rpartition(".")
        if head in fixed:
            found[f"{fixed[head]}.{leaf}"] = value
        elif head == "embed.map_label":
            found["label_emb.weight"] = value.T.contiguous()
        elif head in places:
            place, child = places[head]
            found[f"{place}.{child}.{leaf}"] = value
        else:
            entry, _, part = head.rpartition(".")
            place, child = places[entry]
            known = parts.get(part) or attention[part]
            found[f"{place}.{child + (part in attention)}.{known}.{leaf}"] = value
    return found


def edm_names(state, heads):
    """A state of ours as EDM's DhariwalUNet has it: EDM row h 3d + 3c + j is our row jC + hd + c."""
    found = {}
    for name, value in state.items():
        key = name.removeprefix("embed.").replace("dec.8x8_aux_", "out_")
        if ".qkv." in name:
            width = len(value) // 3
            d = width // heads
            order = [
                j * width + h * d + c for h in range(heads) for c in range(d) for j in range(3)
            ]
            value = value[order]
        found[f"model.{key}"] = value
    return found


def consistency(network, classes=4, **more):
    return load("model", "consistency_official")(
        network={"name": "openai_unet", **network}, shape=(3, 8, 8), classes=classes, **more
    )


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=generator)
    return x, torch.tensor([0.01, 1.0, 40.0]), torch.tensor([0, 3, 1])


@torch.no_grad()
def test_openais_and_edms_files_of_one_network_compute_the_same(tmp_path, inputs):
    x, sigma, labels = inputs
    made = randomise(consistency(WIDE, scalings="edm").build())
    state = made.net.state_dict()
    torch.save(openai_names(state), tmp_path / "model.pt")
    model = consistency(WIDE, scalings="edm")
    ours = model.build()
    model.load(ours, tmp_path / "model.pt")
    want = made(x, sigma, labels)
    assert torch.equal(ours(x, sigma, labels), want)
    adm = create(
        "network",
        {"name": "adm_unet", "model_channels": 128, "channel_mult": [1, 1], "num_blocks": 1,
         "attn_resolutions": [4]},
    ).build((3, 8, 8), 4)  # fmt: skip
    inner = {k.removeprefix("model."): v for k, v in edm_names(state, heads=2).items()}
    fill(adm, from_edm(adm, inner, where="file"), where="file")
    wide = sigma.double()
    scaled = x * (wide**2 + 0.25).rsqrt().float()[:, None, None, None]
    raw = adm.eval()(scaled, (250 * wide.log()).float(), labels)
    assert torch.allclose(raw, made.net(scaled, (250 * wide.log()).float(), labels), atol=1e-5)


@torch.no_grad()
def test_improved_diffusions_order_of_rows_and_flat_kernels(tmp_path, inputs):
    """Its rows are (heads, three, width), its kernels three-dimensional."""
    x, _, _ = inputs
    model = load("model", "iddpm_official")(
        image_size=8, model_channels=32, num_res_blocks=1, attention_resolutions=(1, 2),
        channel_mult=(1, 2), num_heads=4, steps=100, noise_schedule="linear",
    )  # fmt: skip
    made = randomise(model.build())
    flat = {}
    for name, value in made.net.state_dict().items():
        changed = value
        if ".qkv." in name:
            width = len(value) // 3
            d = width // 4
            rows = [j * width + h * d + c for h in range(4) for j in range(3) for c in range(d)]
            changed = value[rows]
        if re.search(r"(qkv|proj)\.weight", name):
            changed = changed.squeeze(-1)
        flat[name] = changed
    # Names that are ours already pass through: the rows and the kernels are what is tested here.
    other = model.build()
    fill(other.net, from_openai(other.net, flat, order="heads-three-width"), where="file")
    sigma = made.levels[torch.tensor([0, 50, 99])]
    assert torch.equal(other(x, sigma), made(x, sigma))


class Persistent(nn.Module):
    """Pickles as torch_utils.persistence pickles a module: source text, name, state."""

    def __init__(self, class_name, **kwargs):
        super().__init__()
        self.__dict__["named"], self._init_kwargs, self._init_args = class_name, kwargs, ()

    def __reduce__(self):
        state = {k: v for k, v in self.__dict__.items() if k != "named"}
        source = "raise SystemExit('the source text was run')"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.named}
        return _reconstruct_persistent_obj, ({**meta, "state": state},)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the original was called")


@pytest.fixture
def persistence(monkeypatch):
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


SONG = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 5, "model_type": "SongUNet",
    "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
    "dropout": 0.13, "augment_dim": 9, "embedding_type": "fourier", "channel_mult_noise": 2,
    "encoder_type": "residual", "resample_filter": [1, 3, 3, 1], "use_fp16": False,
}  # fmt: skip


def edm_pickle(path, denoiser, kwargs):
    """An EDM pickle of a denoiser of ours, its filters included."""
    tree = Persistent("SongUNet", **kwargs)
    line = torch.tensor(kwargs["resample_filter"], dtype=torch.float32)
    kernel = (torch.outer(line, line) / line.sum() ** 2)[None, None]
    tensors = dict(denoiser.net.state_dict())
    tensors = {
        k.replace("embed.freqs", "map_noise.freqs").removeprefix("embed."): v
        for k, v in edm_rows(tensors).items()
    }
    resampled = ("4x4_down.conv0", "4x4_down.skip", "4x4_aux_residual")
    tensors |= {f"enc.{name}.resample_filter": kernel for name in resampled}
    for name, value in tensors.items():
        *path_in, leaf = name.split(".")
        place = tree
        for part in path_in:
            inner = dict(place.named_children()).get(part)
            if inner is None:
                inner = nn.ModuleDict() if part in ("enc", "dec") else Persistent("Layer")
                place.add_module(part, inner)
            place = inner
        if leaf in ("freqs", "resample_filter"):
            place.register_buffer(leaf, value)
        else:
            place.register_parameter(leaf, nn.Parameter(value))
    outer = Persistent("EDMPrecond", **kwargs)
    outer.model = tree
    outer.sigma_data = np.float64(0.5)
    path.write_bytes(pickle.dumps({"ema": outer}, 4))


def edm_rows(state):
    """One head: EDM row 3c + j is our row jC + c."""
    found = {}
    for name, value in state.items():
        width = len(value) // 3
        order = [j * width + c for c in range(width) for j in range(3)]
        found[name] = value[order] if ".qkv." in name else value
    return found


@pytest.mark.usefixtures("persistence")
@torch.no_grad()
def test_an_edm_pickle_states_its_configuration_and_loads(tmp_path, inputs):
    x, sigma, labels = inputs
    kind = load("model", "edm_official")
    made = randomise(kind(**SONG).build())
    edm_pickle(tmp_path / "edm.pkl", made, SONG)
    model = kind.of_file(tmp_path / "edm.pkl")
    assert model == kind(**SONG)
    ours = model.build()
    model.load(ours, tmp_path / "edm.pkl")
    assert torch.equal(ours(x, sigma, labels), made(x, sigma, labels))


@pytest.mark.usefixtures("persistence")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resample_filter": [1, 1]}, "resample_filter"),
        ({"num_blocks": 2}, "num_blocks"),
        ({"attn_resolutions": [8]}, "attn_resolutions"),
        ({"label_dim": 0}, "label_dim"),
        ({"precond": "VEPrecond"}, "precond"),
    ],
)
def test_an_edm_pickle_of_another_configuration_is_refused(tmp_path, change, named):
    kind = load("model", "edm_official")
    edm_pickle(tmp_path / "edm.pkl", kind(**SONG).build(), SONG)
    model = kind(**{**SONG, **change})
    with pytest.raises(UserError, match=named):
        model.load(model.build(), tmp_path / "edm.pkl")


def test_weights_of_another_architecture_name_a_tensor(tmp_path):
    state = openai_names(consistency(WIDE).build().net.state_dict())
    lacking = {k: v for k, v in state.items() if k != "out.2.bias"}
    torch.save(lacking, tmp_path / "lacking.pt")
    torch.save(state | {"extra.weight": torch.zeros(2)}, tmp_path / "extra.pt")
    model = consistency(WIDE)
    for file, named in (("lacking", "aux_conv.bias"), ("extra", "extra.weight")):
        with pytest.raises(UserError, match=named):
            model.load(model.build(), tmp_path / f"{file}.pt")
    with pytest.raises(UserError, match="another architecture"):
        other = consistency({**WIDE, "num_res_blocks": 2})
        other.load(other.build(), tmp_path / "extra.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list"):
        model.load(model.build(), tmp_path / "list.pt")


@torch.no_grad()
def test_a_flax_tree_loads_by_name_whatever_its_order(tmp_path, inputs):
    x, sigma, _ = inputs
    config = {"nf": 16, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4],
              "fir_kernel": [1, 3, 3, 1]}  # fmt: skip
    model = load("model", "consistency_official").of_jcm(config, side=8)
    made = randomise(model.build())
    tree = flax_tree(made.net)
    packed = msgpack.packb({"params": {}, "params_ema": tree}, use_bin_type=True)
    (tmp_path / "checkpoint_80").write_bytes(packed)
    ours = model.build()
    model.load(ours, tmp_path / "checkpoint_80")
    assert torch.equal(ours(x, sigma), made(x, sigma))
    del tree["Dense_1"]
    (tmp_path / "checkpoint_80").write_bytes(msgpack.packb({"params_ema": tree}))
    with pytest.raises(UserError, match="map_layer1"):
        model.load(model.build(), tmp_path / "checkpoint_80")


def flax_tree(net):
    """The tree of consistency_models_cifar10, written out by hand for this one network."""
    blocks = ["enc.8x8_block0", "enc.4x4_down", "enc.4x4_block0", "dec.4x4_in0", "dec.4x4_in1",
              "dec.4x4_block0", "dec.4x4_block1", "dec.8x8_up", "dec.8x8_block0",
              "dec.8x8_block1"]  # fmt: skip
    attention = ["enc.4x4_block0", "dec.4x4_in0", "dec.4x4_block1"]
    state = {k: v.numpy() for k, v in net.state_dict().items()}

    def conv(name):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        return {"kernel": array(kernel), "bias": array(state[f"{name}.bias"])}

    def dense(name):
        return {"kernel": array(state[f"{name}.weight"].T), "bias": array(state[f"{name}.bias"])}

    def norm(name):
        return {"scale": array(state[f"{name}.weight"]), "bias": array(state[f"{name}.bias"])}

    tree = {
        "GaussianFourierProjection_0": {"W": array(state["embed.freqs"])},
        "Dense_0": dense("embed.map_layer0"),
        "Dense_1": dense("embed.map_layer1"),
        "Conv_0": conv("enc.8x8_conv"),
        "Conv_1": conv("dec.8x8_aux_conv"),
        "GroupNorm_0": norm("dec.8x8_aux_norm"),
    }
    down = conv("enc.4x4_aux_residual")
    tree["Downsample_0"] = {"Conv2d_0": {"weight": down["kernel"], "bias": down["bias"]}}
    for i, name in enumerate(blocks):
        tree[f"ResnetBlockBigGANpp_{i}"] = {
            "GroupNorm_0": norm(f"{name}.norm0"), "Conv_0": conv(f"{name}.conv0"),
            "Dense_0": dense(f"{name}.affine"), "GroupNorm_1": norm(f"{name}.norm1"),
            "Conv_1": conv(f"{name}.conv1"),
        }  # fmt: skip
        if f"{name}.skip.weight" in state:
            tree[f"ResnetBlockBigGANpp_{i}"]["Conv_2"] = conv(f"{name}.skip")
    for i, name in enumerate(attention):
        made = {"GroupNorm_0": norm(f"{name}.norm2")}
        for j, (w, b) in enumerate(
            zip(np.split(state[f"{name}.qkv.weight"], 3), np.split(state[f"{name}.qkv.bias"], 3),
                strict=True)
        ):  # fmt: skip
            made[f"NIN_{j}"] = {"W": array(w[:, :, 0, 0].T), "b": array(b)}
        proj = state[f"{name}.proj.weight"][:, :, 0, 0].T
        made["NIN_3"] = {"W": array(proj), "b": array(state[f"{name}.proj.bias"])}
        tree[f"AttnBlockpp_{i}"] = made
    return dict(sorted(tree.items()))


def array(value):
    value = np.ascontiguousarray(value)
    parts = (value.shape, value.dtype.name, value.tobytes())
    return msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))


PARAMETERS = {
    "edm_official/cifar10-uncond-vp": 55_733_891,
    "edm_official/cifar10-cond-vp": 55_735_299,
    "edm_official/cifar10-uncond-ve": 56_397_827,
    "edm_official/cifar10-cond-ve": 56_400_643,
    "edm_official/ffhq-uncond-vp": 61_805_571,
    "edm_official/ffhq-uncond-ve": 62_761_091,
    "edm_official/imagenet64-cond-adm": 295_899_267,
    "consistency_official/imagenet64-cd-lpips": 295_899_267,
    "consistency_official/bedroom256-ct": 526_304_771,
    "consistency_official/cifar10-cd-lpips": 56_395_651 - 128,
    "iddpm_official/cifar10-hybrid": 52_546_438,
}
"""Of the official classes; the JAX count holds its 128 Fourier frequencies, a buffer here."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_cards_build_networks_of_the_official_size(name):
    placed = next(c for c in list_cards() if c.full_name == name)
    with torch.device("meta"):
        built = load("model", placed.family)(**placed.card.config).build()
    assert sum(p.numel() for p in built.net.parameters()) == PARAMETERS[name]
    assert tuple(built.shape) == placed.card.shape
    assert built.classes == (placed.card.classes or 0)


def test_every_official_card_has_its_file_in_the_catalogue_and_a_sampler_that_exists():
    cards = [c for c in list_cards() if c.family.endswith("_official") and c.asset]
    assert len(cards) >= 40
    for placed in cards:
        asset = find_asset(placed.asset)
        assert asset.url.endswith(asset.file) or "jcm_checkpoints" in asset.url
        if placed.card.sampler is not None:
            create("sampler", placed.card.sampler)
