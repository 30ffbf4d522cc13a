"""Cold diffusion's official files and cards, on small files written here."""

import pytest
import torch

from cmbench.assets.catalogue import find_asset
from cmbench.cards.cards import list_cards
from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create, load
from cmbench.core.random import Noise
from cmbench.degradations._mixing import cosine_signal
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

SMALL = {"name": "cold_unet", "dim": 8, "dim_mults": [1, 2]}
CARDS = [c for c in list_cards() if c.family == "cold" and c.asset]


def model(degradation, **more):
    more = {"starts": "degradation", **more}
    fields = {"network": SMALL, "degradation": degradation, "shape": (3, 8, 8), **more}
    return load("model", "cold")(**fields)


def written(path, **beside):
    """A bare state under the authors' names, from random weights, with `beside` next to it."""
    from cmbench.released.cold_names import _names

    net = create("network", SMALL).build((3, 8, 8))
    theirs = {ours: name for name, ours in _names(net)}
    state = {}
    for key, value in net.state_dict().items():
        name = theirs[key]
        wide = name.endswith((".g", ".b"))
        state[f"module.denoise_fn.{name}"] = value.reshape(1, -1, 1, 1) if wide else value
    torch.save({"step": 1, "model": {}, "ema": {**state, **beside}}, path)
    return path


def test_the_arguments_of_the_authors_classes_are_read():
    cold = load("model", "cold")
    grey = {"name": "desaturate", "levels": 4}
    told = {"dim": 8, "dim_mults": [1, 2], "channels": 3, "with_time_emb": False, "residual": True}
    for name in ("Unet", "UnetConvNextBlock"):
        built = cold.of_official(name, told, shape=(3, 8, 8), degradation=grey)
        assert built.network == create("network", {**SMALL, "with_time_emb": False}).spec()
        assert built.residual
    told = {"resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
            "num_res_blocks": 1, "attn_resolutions": [4], "with_time_emb": True}  # fmt: skip
    built = cold.of_official("UnetResNetBlock", told, shape=(3, 8, 8), degradation=grey)
    assert built.network["name"] == "cold_model2"
    for name, wrong in (
        ("UnetResNetBlock", {**told, "with_time_emb": False}),
        ("Unet", {"dim": 8, "output_mean_scale": True}),
        ("Unet", {"dim": 8, "heads": 3}),
        ("Unet3", {}),
    ):
        with pytest.raises(UserError):
            cold.of_official(name, wrong, shape=(3, 8, 8), degradation=grey)


PARAMETERS = {
    ("cold_unet", 3): 56_615_708,
    ("cold_unet", 1): 56_612_916,
    ("cold_model2", 3): 35_746_307,
}
"""Counted from the authors' classes."""


@pytest.mark.parametrize(("name", "channels"), PARAMETERS)
def test_the_official_networks_have_their_official_size(name, channels):
    with torch.device("meta"):
        net = create("network", name).build((channels, 32, 32))
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name, channels]


@pytest.mark.parametrize("placed", CARDS, ids=lambda c: c.name)
def test_official_cards_build_and_wait_for_their_file(placed):
    with torch.device("meta"):
        built = load("model", "cold")(**placed.card.config).build()
    assert tuple(built.shape) == placed.card.shape
    if placed.card.sampler is not None:
        sampler = create("sampler", placed.card.sampler)
        late = placed.card.config["degradation"]["name"] in ("snow", "desaturate")
        assert sampler.off_by_one is late
    for published in placed.card.published:
        assert published.nfe == built.levels
    assert find_asset(placed.asset).url is None


def test_there_is_a_card_for_every_task_of_the_paper():
    tasks = {c.name.partition("-")[2] for c in CARDS}
    assert tasks == {
        "generation", "animorphosis", "deblur", "inpaint", "superres", "snow", "desaturate"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": 7}, "even"),
        ({"dim_mults": [2, 2]}, "start with 1"),
        ({"name": "cold_model2", "dim": 8}, "unknown key 'dim'"),
    ],
)
def test_impossible_networks_are_refused(fields, said):
    with pytest.raises(UserError, match=said):
        create("network", {**SMALL, **fields} if "name" not in fields else fields)
    with pytest.raises(UserError, match="multiples of 32"):
        create("network", {"name": "cold_model2", "ch": 48})
    with pytest.raises(UserError, match="halved"):
        create("network", SMALL).build((3, 9, 9))
    with pytest.raises(UserError, match="halved"):
        create("network", "cold_model2").build((3, 28, 28))


def test_without_the_time_the_severity_changes_nothing():
    net = create("network", {**SMALL, "with_time_emb": False}).build((3, 8, 8))
    assert not any("told" in name for name in net.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x, torch.tensor([0.0, 1.0])), net(x, torch.tensor([5.0, 9.0])))


def test_an_official_file_of_another_noise_is_refused(tmp_path):
    """Hot and animorphosis files carry their schedule."""
    own = cosine_signal(20)[1:].float()
    right = written(tmp_path / "a.pt", **{"module.alphas_cumprod": own})
    hot = model({"name": "gaussian", "levels": 20})
    hot.load(hot.build(), right)
    for other, said in (
        ({"name": "gaussian", "levels": 21}, "mixes in 20 steps"),
        ({"name": "desaturate", "levels": 20}, "mixes in noise"),
    ):
        with pytest.raises(UserError, match=said):
            model(other).load(model(other).build(), right)
    wrong = written(tmp_path / "b.pt", **{"alphas_cumprod": own.sqrt()})
    with pytest.raises(UserError, match="another schedule"):
        hot.load(hot.build(), wrong)


def test_the_schedule_of_the_authors_has_the_published_values():
    signal = cosine_signal(200)[1:]
    for place, value in ((0, 0.99974503), (100, 0.48605241), (198, 6.0718e-05), (199, 6.0718e-08)):
        assert float(signal[place]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"step": 1, "model": {"a": torch.zeros(1)}}, "lacks averaged weights"),
        ([torch.zeros(1)], "not a checkpoint"),
        ({"ema": {"module.denoise_fn.conv_in.weight": torch.zeros(1)}}, "another architecture"),
        (
            {"ema": {"denoise_fn.a.b": torch.zeros(1), "odd.b": torch.zeros(1)}},
            "belongs neither to the",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, held, said):
    torch.save(held, tmp_path / "x.pt")
    grey = model({"name": "desaturate", "levels": 4})
    with pytest.raises(UserError, match=said) as caught:
        grey.load(grey.build(), tmp_path / "x.pt")
    assert "x.pt" in str(caught.value)


def test_generation_from_an_official_file_needs_the_colours_of_its_data(tmp_path):
    file = written(tmp_path / "a.pt")
    lacking = model({"name": "desaturate", "levels": 4}, starts="gmm")
    with pytest.raises(UserError, match="colours from which"):
        lacking.load(lacking.build(), file)
    mean, root = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.3, 0.2, 0.1])
    covariance = torch.diag(root**2).tolist()
    told = model(
        {"name": "desaturate", "levels": 4},
        starts="gmm", start_mean=mean.tolist(), start_covariance=covariance,
    )  # fmt: skip
    restorer = told.build()
    told.load(restorer, file)
    colours = restorer.start(Noise(0, range(4000), (3, 8, 8)))
    assert torch.equal(colours, colours[:, :, :1, :1].expand_as(colours))
    assert torch.allclose(colours.mean((0, 2, 3)), mean, atol=0.02)
    assert torch.allclose(colours[:, :, 0, 0].std(0), root, rtol=0.05)
    flat = torch.zeros(3, 3).sub(1).tolist()
    broken = model(
        {"name": "desaturate", "levels": 4},
        starts="gmm", start_mean=mean.tolist(), start_covariance=flat,
    )  # fmt: skip
    with pytest.raises(UserError, match="is not a covariance"):
        broken.load(broken.build(), file)


SUITE = """\
suite: cold
dataset: cifar10
images: {{count: 24}}
features: pixels
metrics: [frechet_distance]
runs:
  - model: cold/cifar10-deblur
{more}"""


def test_a_suite_with_an_official_card_waits_until_its_file_is_named(tmp_path):
    path = tmp_path / "cold.yaml"
    path.write_text(SUITE.format(more=""))
    (cell,) = make_plan(*read_suite(str(path))).cells
    assert isinstance(cell.pending, Pending)
    assert cell.pending.command.startswith("cmbench assets add cold-cifar10-deblur")
    written(tmp_path / "mine.pt")
    path.write_text(SUITE.format(more="    weights: mine.pt\n"))
    (cell,) = make_plan(*read_suite(str(path))).cells
    assert cell.pending is None
    assert cell.network.file == tmp_path / "mine.pt"
