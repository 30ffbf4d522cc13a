"""NCSN and NCSNv2 against the authors' code at random weights."""

import pytest
import torch
from authors_vectors import Vectors

from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.released.edm_openai_names import fill
from cmbench.released.ncsn_names import from_ncsn, ncsn_states
from cmbench.released.torch_state import read_torch
from cmbench.samplers.annealed_langevin import AnnealedLangevin
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.dsm import DSM

pytestmark = pytest.mark.parity

FILES = {"ncsn_v1": "checkpoint.pth", "ncsn_v2": "checkpoint_300000.pth"}


@pytest.fixture(scope="module", params=FILES)
def z(request):
    return Vectors(request.param)


def weights(z):
    return next(z.folder.glob("*.pth"))


def loaded(z):
    model = load("model", "ncsn").of_config(z.meta["constructor"])
    denoiser = model.build()
    model.load(denoiser, weights(z))
    return denoiser


def ours(images):
    """From the authors' [0, 1] to [-1, 1]."""
    return 2 * images - 1


def theirs(images):
    return (images + 1) / 2


def score(z, denoiser):
    """The network's answer as the authors return it."""
    labels = z["labels"]
    raw = denoiser.net(ours(z["x"]), labels)
    if denoiser.conditional:
        return raw
    return raw / (denoiser.levels / denoiser.unit).float()[labels][:, None, None, None]


class Replayed(ReplayNoise):
    """Recorded noise, and a recorded start."""

    def __init__(self, first, draws):
        super().__init__([torch.zeros_like(first), *draws])
        self.first = first

    def uniform(self, draw):
        assert draw == 0
        return self.first


@torch.no_grad()
def test_the_score_at_every_level(z):
    denoiser = loaded(z)
    z.agree("score", score(z, denoiser))
    for name in ("sigmas", "sigmas_float64"):
        if name in z:
            z.agree(name, denoiser.levels / denoiser.unit)


@torch.no_grad()
def test_the_average_is_loaded_and_the_raw_weights_are_others(z):
    if "score_raw_weights" not in z:
        assert len(read_torch(weights(z))) == 2, "a set without an average"
        return
    denoiser = loaded(z)
    raw = ncsn_states(read_torch(weights(z)), where="")[1]
    fill(denoiser.net, from_ncsn(denoiser.net, raw), where="")
    z.agree("score_raw_weights", score(z, denoiser)[: len(z["score_raw_weights"])])


@torch.no_grad()
def test_the_denoiser(z):
    denoiser = loaded(z)
    sigma = denoiser.levels[z["labels"]]
    z.agree("D", theirs(denoiser(ours(z["x"]).double(), sigma)))


@torch.no_grad()
def test_the_chain(z):
    told, denoiser = z.meta["trajectory"], loaded(z)
    first = "ald/official_last_image" in z
    sampler = AnnealedLangevin(
        steps_each=told["n_steps_each"],
        step_lr=told["step_lr"],
        ends="before_last" if first else "denoised",
    )
    states, indices = [], []

    def note(module, args):
        states.append(theirs(args[0]))
        indices.append(int(denoiser.index(args[1])[0]))

    denoiser.register_forward_pre_hook(note)
    noise = Replayed(z["init"], z["noise"])
    final = theirs(sampler.sample(denoiser, noise))
    assert len(states) == told["levels"] * told["n_steps_each"] + (not first)
    z.agree("ald/x_calls", torch.stack(states))
    z.agree("ald/labels", torch.tensor(indices))
    if first:
        z.agree("ald/official_last_image", final.clamp(0, 1))
        last = sampler.model_copy(update={"ends": "last"}).sample(denoiser, noise)
        z.agree("ald/state_after_last_update", theirs(last))
    else:
        z.agree("ald/denoised", final)
        z.agree("ald/before_denoise", states[-1])


@torch.no_grad()
def test_the_loss(z):
    denoiser = loaded(z)
    loss = DSM().build(Setup(denoiser, None, None, 1, torch.device("cpu")))
    images = ours(z["x_start"]).double()
    found = loss.at(images, torch.tensor([1, 3]), z["loss_noise"].double(), None)
    z.agree("loss_dsm", found.mean())
    drawn = loss(images, None, 0, Draws(0, 0, 2, (0, 2), torch.device("cpu")))
    assert drawn.shape == (2,)
