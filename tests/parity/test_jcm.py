"""OpenAI's CIFAR-10 consistency models (JAX) against the authors' code at random weights."""

import numpy as np
import pytest
import torch
from authors_vectors import Vectors
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from cmbench.core.images import to_pixels
from cmbench.core.loader import create, load
from cmbench.core.random import ReplayNoise
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._ode import denoise
from cmbench.samplers.euler import Euler
from cmbench.samplers.heun import Heun
from cmbench.samplers.multistep import MultiStep
from cmbench.train.objectives._consistency import adaptive_points, adaptive_rate
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.cd import ConsistencyDistillation

pytestmark = pytest.mark.parity

FILES = {
    "edm": "edm_cifar10_ema",
    "cd": "cd-l2/checkpoints/checkpoint_80",
    "ct": "ct-l2/checkpoints/checkpoint_74",
}


def vectors(file="io.npz"):
    return Vectors("jcm_cifar10", file)


def nchw(value):
    return value.movedim(-1, -3)


def near(got, want, bound=2e-5):
    """The set's own bound: the largest error against the largest value."""
    got, want = torch.as_tensor(got).double(), torch.as_tensor(want).double()
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= bound * float(want.abs().max())


def loaded(z, name, tree="params_ema", **more):
    scalings = "edm" if name == "edm" else "consistency"
    model = load("model", "consistency_official").of_jcm(
        z.meta["config"]["cd"]["model"], **{"scalings": scalings, "tree": tree, **more}
    )
    denoiser = model.build()
    model.load(denoiser, z.folder / FILES[name])
    return denoiser.eval()


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_network(name):
    z = vectors()
    denoiser = loaded(z, name)
    scaled = nchw(z["net/x"]) * z["net/c_in"][:, None, None, None]
    near(denoiser.net(scaled, z["net/cond"]), nchw(z[f"net/{name}/raw"]))
    kind = "denoiser" if name == "edm" else "distiller"
    near(denoiser(nchw(z["net/x"]), z["net/sigma"]), nchw(z[f"net/{name}/{kind}"]))
    c_skip, c_out = denoiser.scalings(z["net/sigma"].double())
    near(c_skip, z[f"net/c_skip_{kind}"])
    near(c_out, z[f"net/c_out_{kind}"])
    if name == "cd":
        near(denoiser.net(nchw(z["net2/in_x"]), z["net2/cond"]), nchw(z["net2/cd/raw"]))


@pytest.mark.parametrize(
    ("name", "tree"),
    [("edm", "params"), ("cd", "params"), ("ct", "params"), ("ct", "target_params")],
)
@torch.no_grad()
def test_other_trees_are_read_when_asked_for(name, tree):
    z = vectors()
    want = nchw(z[f"net/{name}/raw_from_{tree}"])
    scaled = (nchw(z["net/x"]) * z["net/c_in"][:, None, None, None])[: len(want)]
    near(loaded(z, name, tree).net(scaled, z["net/cond"][: len(want)]), want)


@torch.no_grad()
def test_score():
    z = vectors()
    x, sigma = nchw(z["net/x"]), z["net/sigma"]
    want = nchw(z["net/edm/score"])
    score = (loaded(z, "edm")(x, sigma) - x) / (sigma**2)[:, None, None, None]
    near(score[: len(want)], want, 2e-4)


@pytest.mark.parametrize("name", ["cd", "ct"])
@torch.no_grad()
def test_one_step_and_bytes(name):
    z = vectors()
    found = denoise(loaded(z, name), nchw(z[f"onestep/{name}/z"]) * 80, 80.0, None)
    near(found, nchw(z[f"onestep/{name}/sample"]))
    want = nchw(z[f"onestep/{name}/uint8_evaluate_py"])
    apart = (to_pixels(found, "truncate").int() - want.int()).abs()
    assert int(apart.max()) <= 1
    assert float((apart > 0).float().mean()) < 1e-3


@pytest.mark.parametrize("number", [0, 1])
@torch.no_grad()
def test_multistep(number):
    z = vectors()
    told, name = z.meta["multistep"][number], f"multistep{number}"
    sampler = MultiStep(indices=tuple(told["ts"]), grid=told["train_N"])
    noise = ReplayNoise([nchw(z[f"{name}/init_z"]), *nchw(z[f"{name}/noises"])])
    found = sampler.sample(loaded(z, told["checkpoint"]), noise)
    near(sampler.points(0.002, 80.0), z[f"{name}/t"])
    near(found, nchw(z[f"{name}/x0_clipped_per_step"])[-1])


@pytest.mark.parametrize("method", ["heun", "euler"])
@torch.no_grad()
def test_ode_samplers(method):
    z = vectors()
    noise = ReplayNoise([nchw(z["heun/x_T"]) / 80])
    sampler = Heun(steps=18) if method == "heun" else Euler(steps=18)
    near(sampler.sample(loaded(z, "edm"), noise), nchw(z[f"{method}/sample"]))


def test_schedules():
    z = vectors("schedules.npz")
    steps, total = z["ct_adaptive/step"].tolist(), 800_000
    points = [adaptive_points(k, total, 2, 150) for k in steps]
    assert points == z["ct_adaptive/N"].tolist()
    near([adaptive_rate(n, 2, 0.9) for n in points], z["ct_adaptive/mu"])
    for count in (18, 151):
        near(karras_grid(count), z[f"karras_N{count}_t"])


DISTANCES = {"l1": "l1", "l2": "l2"}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("solver", ["heun", "euler"])
@torch.no_grad()
def test_distillation(solver, distance):
    z, losses = vectors(), vectors("losses.npz")
    student, teacher = loaded(z, "cd", "params"), loaded(z, "edm")
    built = create("distance", distance).build(torch.device("cpu"))
    setup = Setup(student, teacher, built, 1, torch.device("cpu"))
    loss = ConsistencyDistillation(points=18, solver=solver).build(setup)
    t, u = losses["cd/t"], losses["cd/t2"]
    x_t = nchw(losses["x"]) + t[:, None, None, None] * nchw(losses["cd/z"])
    near(x_t, nchw(losses["cd/x_t"]))
    place = "cd" if solver == "heun" else "cd_euler"
    x_u = loss.solve(x_t, t, u, None)
    near(x_u, nchw(losses[f"{place}/x_t2"]))
    found = loss.pair_loss(x_t, t, x_u, u, None)
    near(found, losses[f"{place}/per_sample_{distance}"], 2e-4)
    near(found.mean(), losses[f"{place}/loss_{distance}_uniform"], 2e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradient_of_distillation(distance):
    z, losses = vectors(), vectors("losses.npz")
    student = loaded(z, "cd", "params")
    built = create("distance", distance).build(torch.device("cpu"))
    online = student(nchw(losses["cd/x_t"]), losses["cd/t"])
    with torch.no_grad():
        aim = student(nchw(losses["cd/x_t2"]), losses["cd/t2"])
    built(online, aim).mean().backward()
    grads = {name: p.grad for name, p in student.net.named_parameters()}
    norm = torch.stack([g.norm() for g in grads.values()]).norm()
    near(norm, losses[f"cd/grad_global_norm_{distance}"], 2e-4)
    last = next(g for name, g in grads.items() if name.endswith("aux_conv.weight"))
    near(last.permute(2, 3, 1, 0), losses[f"cd/grad_{distance}_Conv_1_kernel"], 2e-4)
    near(grads["embed.map_layer0.bias"], losses[f"cd/grad_{distance}_Dense_0_bias"], 2e-4)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("number", [0, 1])
@torch.no_grad()
def test_training(number, distance):
    z, losses = vectors(), vectors("losses.npz")
    place = f"ct{number}"
    built = create("distance", distance).build(torch.device("cpu"))
    online, target = loaded(z, "ct", "params"), loaded(z, "ct", "target_params")
    t, u, noise = losses[f"{place}/t"], losses[f"{place}/t2"], nchw(losses[f"{place}/z"])
    x_t, x_u = (nchw(losses["x"]) + s[:, None, None, None] * noise for s in (t, u))
    near(online(x_t, t), nchw(losses[f"{place}/Ft"]))
    near(target(x_u, u), nchw(losses[f"{place}/Ft2"]))
    near(built(online(x_t, t), target(x_u, u)), losses[f"{place}/per_sample_{distance}"], 2e-4)


@pytest.mark.parametrize("name", ["cd", "ct"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_continuous_time_tangent(name):
    """The derivative of f along the ODE, from which the continuous-time losses are made."""
    z, losses = vectors(), vectors("losses.npz")
    place = f"cont_{name}"
    student = loaded(z, "cd", "params")
    x, t, dx = nchw(losses[f"{place}/x_t"]), losses[f"{place}/t"], nchw(losses[f"{place}/dx_t"])
    weights = dict(student.named_parameters()) | dict(student.named_buffers())
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        value, change = jvp(
            lambda x, t: functional_call(student, weights, (x, t)),
            (x, t),
            (dx, -torch.ones_like(t)),
        )
    near(value, nchw(losses[f"{place}/Ft"]))
    near(change, nchw(losses[f"{place}/dF"]), 2e-4)
    near(change.abs().mean(), losses[f"{place}/loss_l1"], 2e-4)
    near(change.flatten(1).norm(dim=1).mean(), losses[f"{place}/loss_l2"], 2e-4)
    pseudo = (-change * value).flatten(1).sum(1).mean()
    near(pseudo, losses[f"{place}/loss_l2_stopgrad_pseudo"], 2e-4)


@torch.no_grad()
def test_denoising_loss():
    z, losses = vectors(), vectors("losses.npz")
    teacher, t, images = loaded(z, "edm"), losses["dsm/t"], nchw(losses["x"])
    clean = teacher(images + t[:, None, None, None] * nchw(losses["dsm/z"]), t)
    near(clean, nchw(losses["dsm/denoised"]))
    weight = (t**2 + 0.25) / (t * 0.5) ** 2
    error = (clean - images).square().flatten(1).sum(1)
    near((weight * error).mean(), losses["dsm/loss"], 2e-4)


@torch.no_grad()
def test_the_positional_network_that_was_never_released(tmp_path):
    msgpack = pytest.importorskip("msgpack")
    z = vectors("optional_k_vp.npz")
    tree: dict = {}
    for name, value in z.arrays.items():
        if name.startswith("params/"):
            *path, leaf = name.split("/")[1:]
            inner = tree
            for part in path:
                inner = inner.setdefault(part, {})
            inner[leaf] = packed(msgpack, value)
    file = tmp_path / "checkpoint"
    file.write_bytes(msgpack.packb({"params_ema": tree}, use_bin_type=True))
    config = z.meta["optional_k_vp_model_config"]
    model = load("model", "consistency_official").of_jcm(config, scalings="edm")
    denoiser = model.build()
    model.load(denoiser, file)
    near(denoiser.net(nchw(z["in_x"]), z["cond"]), nchw(z["raw"]))
    near(denoiser(nchw(z["x"]), z["sigma"]), nchw(z["denoiser"]))


def packed(msgpack, value):
    """An array as Flax packs it."""
    parts = (value.shape, value.dtype.name, np.ascontiguousarray(value).tobytes())
    return msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))
