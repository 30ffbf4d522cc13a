"""Score SDE's networks, processes and samplers against the authors' code at random weights."""

import pytest
import torch
from authors_vectors import Vectors

from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.denoise.sde import VE
from cmbench.denoise.sde_denoiser import Scores
from cmbench.released.edm_openai_names import fill
from cmbench.released.score_sde_names import from_score_sde, score_sde_states
from cmbench.released.torch_state import read_torch
from cmbench.samplers.predictor_corrector import PredictorCorrector
from cmbench.samplers.probability_flow_rk45 import ProbabilityFlowRK45
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.score_sde import ScoreSDE

pytestmark = pytest.mark.parity

PROCESSES = [("score_sde_ve", "vesde"), ("score_sde_vp", "vpsde"), ("score_sde_vp", "subvpsde")]
RUNS = {
    "score_sde_ve": ["pc/rd_langevin", "pc/ancestral_none", "pc/em_ald", "pc/rd_pf_nodenoise"],
    "score_sde_vp": ["pc/em_none", "pc/ancestral_langevin", "pc/rd_none", "pc/subvp_em"],
}
SOLVES = {
    "score_sde_ve": ["ode/default", "ode/loose_denoise"],
    "score_sde_vp": ["ode/default", "ode/loose_denoise", "ode/subvp_loose"],
}
PREDICTORS = {"ancestral_sampling": "ancestral"}
KEPT = {}


def vectors(folder):
    if folder not in KEPT:
        KEPT[folder] = Vectors(folder)
    return KEPT[folder]


def loaded(z, sde=None):
    model = load("model", "score_sde").of_config(z.meta["constructor"], sde)
    denoiser = model.build()
    model.load(denoiser, z.folder / "checkpoint.pth")
    return denoiser


def cases(table):
    return [(folder, name) for folder, names in table.items() for name in names]


@pytest.mark.parametrize("folder", RUNS)
@torch.no_grad()
def test_the_network_with_either_weights(folder):
    z = vectors(folder)
    denoiser = loaded(z)
    name = "vesde" if folder.endswith("ve") else "vpsde"
    inner = z[f"{name}/x"] * (2 if denoiser.unit == 2 else 1) - (denoiser.unit - 1)
    label = z[f"{name}/labels"].double()
    c_noise = (label.log() if denoiser.noise_labels.fourier else label).float()
    divisor = denoiser._divisor(label).float()[:, None, None, None]
    z.agree("model_output", denoiser.net(inner, c_noise) / divisor)
    raw = score_sde_states(denoiser.net, read_torch(z.folder / "checkpoint.pth"), where="")[1]
    fill(denoiser.net, from_score_sde(denoiser.net, raw), where="")
    z.agree("model_output_raw_weights", denoiser.net(inner, c_noise) / divisor)


@pytest.mark.parametrize(("folder", "name"), PROCESSES)
@torch.no_grad()
def test_the_process(folder, name):
    z = vectors(folder)
    scores = Scores(loaded(z, name))
    sde, t, images = scores.sde, z["t"], z["x_start"]
    std, alpha = sde.std(t), sde.alpha(t)
    x = alpha[:, None, None, None] * images + std[:, None, None, None] * z["noise"]
    z.agree(f"{name}/std", std)
    z.agree(f"{name}/x", x)
    z.agree(f"{name}/drift", sde.drift(x, t))
    z.agree(f"{name}/diffusion", sde.diffusion(t))
    z.agree(f"{name}/sigma", sde.sigma(t.double()))
    assert torch.allclose(sde.time(sde.sigma(t.double())), t.double(), atol=1e-12)
    if f"{name}/discretize_f" in z:
        drift, spread = sde.discretize(x, t, 1000)
        z.agree(f"{name}/discretize_f", drift)
        z.agree(f"{name}/discretize_G", spread)
    z.agree(f"{name}/labels", scores.denoiser.label(sde.sigma(t.double())))


@pytest.mark.parametrize(("folder", "name"), PROCESSES)
@torch.no_grad()
def test_the_denoiser_and_the_score(folder, name):
    z = vectors(folder)
    scores = Scores(loaded(z, name))
    sde, t = scores.sde, z["t"]
    z.agree(f"{name}/x_sigma", z[f"{name}/x"] / sde.alpha(t)[:, None, None, None])
    x = scores.to_images(z[f"{name}/x_sigma"].double())
    clean = scores.denoiser(x, scores.unit * z[f"{name}/sigma"])
    z.agree(f"{name}/D", scores.to_process(clean))
    # The authors' deviations are rounded to float32, which the score shows at the least t.
    exploding = isinstance(sde, VE)
    exact = sde.time(sde.std(t)) if exploding else t.double()
    found = scores.score(z[f"{name}/x"].double(), exact)
    if not exploding:
        found = found * (sde.std(exact) / sde.std(t))[:, None, None, None]
    z.agree(f"{name}/score", found)


@pytest.mark.parametrize(("folder", "name"), PROCESSES)
@torch.no_grad()
def test_the_losses(folder, name):
    z = vectors(folder)
    denoiser = loaded(z, name)
    images = z["x_start"].double() if denoiser.unit == 1 else 2 * z["x_start"].double() - 1
    for key, weighted in (("loss", False), ("loss_lw", True)):
        reduce = "mean" if z.meta["constructor"]["training"]["reduce_mean"] else "half_sum"
        spec = ScoreSDE(reduce=reduce, likelihood_weighting=weighted)
        loss = spec.build(Setup(denoiser, None, None, 1, torch.device("cpu")))
        found = loss.at(images, z["t"], z["noise"].double(), None)
        z.agree(f"{name}/{key}", found.mean())


@pytest.mark.parametrize(("folder", "name"), cases(RUNS))
@torch.no_grad()
def test_predictor_corrector(folder, name):
    z = vectors(folder)
    told = z.meta["runs"][name]
    denoiser = loaded(z, told["sde"])
    sampling = z.meta["constructor"]["sampling"]
    sampler = PredictorCorrector(
        steps=told["N"],
        predictor=PREDICTORS.get(told["predictor"], told["predictor"]),
        corrector=told["corrector"],
        corrector_steps=told.get("n_steps", 1),
        snr=told.get("snr", sampling["snr"]),
        norms="batch",
        probability_flow=told.get("pf", False),
        denoise=told.get("denoise", True),
        end=told["eps"],
    )
    scores, states, labels = Scores(denoiser), [], []

    def note(module, args):
        sigma = args[1] / denoiser.unit
        alpha = scores.sde.alpha(scores.sde.time(sigma))[:, None, None, None]
        states.append(scores.to_process(args[0]) * alpha)
        labels.append(float(denoiser.label(sigma)[0]))

    denoiser.register_forward_pre_hook(note)
    final = sampler.sample(denoiser, ReplayNoise(z["sample_noise"]))
    assert len(states) == told["network_calls"] == sampler.nfe()
    kept = z[f"{name}/x_calls"]
    z.agree(f"{name}/labels", torch.tensor(labels))
    z.agree(f"{name}/x_calls", torch.stack(states[:: 1 if len(kept) == len(states) else 8]))
    z.agree(f"{name}/final", (final + 1) / 2)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[1] == "ode/default" else ())
        for case in cases(SOLVES)
    ],
)
@torch.no_grad()
def test_probability_flow(folder, name):
    z = vectors(folder)
    told = z.meta["runs"][name]
    denoiser = loaded(z, told["sde"])
    sampler = ProbabilityFlowRK45(
        rtol=told["rtol"],
        atol=told["atol"],
        denoise=told["denoise"],
        end=told["eps"],
        shared_steps=True,
    )
    calls = []
    denoiser.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    noise = ReplayNoise(z["sample_noise"])
    final = sampler.sample(denoiser, noise)
    assert calls == [len(noise)] * told["network_calls"]
    assert told["network_calls"] == int(z[f"{name}/nfev"]) + told["denoise"]
    z.agree(f"{name}/final", (final + 1) / 2)
