"""Cold diffusion's networks and algorithms through the adapter, to the authors' numbers."""

from typing import ClassVar

import pytest
import torch
from authors_vectors import Vectors
from cold_settings import blur_of, cut, fade_of

from cmbench.core.errors import UserError
from cmbench.core.loader import load
from cmbench.degradations.desaturate import Desaturate
from cmbench.degradations.pixelate import Pixelate
from cmbench.degradations.snow import Snow
from cmbench.samplers.cold_algorithm1 import ColdAlgorithm1
from cmbench.samplers.cold_algorithm2 import ColdAlgorithm2
from cmbench.samplers.cold_direct import ColdDirect

pytestmark = pytest.mark.parity

SETS = ["cold", "cold_model2"]
ALGORITHMS = {"x0_step_down": ColdAlgorithm2, "default": ColdAlgorithm1}


@pytest.fixture(params=SETS)
def z(request):
    return Vectors(request.param)


@pytest.fixture
def cold():
    return Vectors("cold")


def model_of(vectors, degradation, **more):
    told = vectors.meta["constructor"]
    shape = tuple(vectors["img"].shape[1:])
    return load("model", "cold").of_official(
        told["network"], told["kwargs"], shape=shape, degradation=degradation, **more
    )


def restorer_of(vectors, degradation=None, file=None):
    """Our restorer with the file's averaged weights; the file's own blur if none is given."""
    trained = trained_blur(vectors)
    model = model_of(vectors, trained.spec())
    restorer = model.build()
    model.load(restorer, file or vectors.folder / "model.pt")
    if degradation is not None:
        restorer.degradation = degradation
    return restorer


def trained_blur(vectors):
    told = vectors.meta["constructor"]["GaussianDiffusion"]
    copy = {**vectors.meta, "blur_routines": {told["blur_routine"]: told}}
    return blur_of(type("Told", (), {"meta": copy}), told["blur_routine"])


@torch.no_grad()
def check_algorithms(vectors, group, spec, start, noise=None, off_by_one=False):
    """Both algorithms with the official network, from the official start."""
    restorer, checked = restorer_of(vectors, spec), 0
    for routine, kind in ALGORITHMS.items():
        if f"{group}/{routine}/x_T" in vectors:
            vectors.agree(f"{group}/{routine}/x_T", start)
        if f"{group}/{routine}/final" in vectors:
            got = kind(off_by_one=off_by_one).restore(restorer, start, noise)
            vectors.agree(f"{group}/{routine}/final", got)
            checked += 1
    assert checked


def fully(vectors, spec):
    return torch.full((len(vectors["img"]),), spec.levels)


@torch.no_grad()
def test_the_network_with_its_averaged_weights(z):
    net = restorer_of(z).net
    z.agree("R", net(z["x"], z["t"].float()))


@torch.no_grad()
def test_the_trained_weights_are_others(cold, tmp_path):
    """Key `model` is what was trained; loading it gives the authors' other array."""
    held = torch.load(cold.folder / "model.pt", weights_only=True)
    torch.save({**held, "ema": held["model"]}, tmp_path / "raw.pt")
    got = restorer_of(cold, file=tmp_path / "raw.pt").net(cold["x"], cold["t"].float())
    cold.agree("R_raw_weights", got)
    assert (got - cold["R"]).abs().max() > 0.1


def test_algorithms_under_the_blurs_that_were_recorded(z):
    found = {
        k.split("/")[1] for k in z.arrays if k.startswith("restore/") and k.endswith("/final")
    }
    plain = [r for r in found if f"restore/{r}/x0_step_down/final" in z]
    assert plain
    for routine in plain:
        spec = blur_of(z, routine)
        start = spec.degrade(z["img"], fully(z, spec))
        check_algorithms(z, f"restore/{routine}", spec, start)
        with torch.no_grad():
            direct = ColdDirect().restore(restorer_of(z, spec), start)
        z.agree(f"restore/{routine}/x0_step_down/direct", direct)


def test_severities_are_told_as_the_authors_do(z):
    """Each network input and output of all_sample(), in order."""
    for name in [k for k in z.arrays if k.endswith("x0_step_down/Xts")]:
        group, routine = name.removesuffix("/Xts"), name.split("/")[1]
        spec = blur_of(z, routine)
        restorer, asked = restorer_of(z, spec), []
        restorer.net.register_forward_hook(
            lambda _, given, out, asked=asked: asked.append((given[0], given[1], out))
        )
        with torch.no_grad():
            ColdAlgorithm2().restore(restorer, spec.degrade(z["img"], fully(z, spec)))
        z.agree(f"{group}/Xts", torch.stack([x for x, _, _ in asked]))
        assert [float(c[0]) for _, c, _ in asked] == list(range(spec.levels - 1, -1, -1))


@torch.no_grad()
def test_discrete_generation_from_the_mean(cold):
    group, spec = (
        "restore/Exponential/x0_step_down_discrete",
        blur_of(cold, "Exponential", discrete=True),
    )
    start = spec.degrade(cold["img"], fully(cold, spec))
    cold.agree(f"{group}/x_T", start)
    cold.agree(f"{group}/final", ColdAlgorithm2().restore(restorer_of(cold, spec), start))


@torch.no_grad()
def test_individual_blur_blurs_once_more_at_the_end(cold):
    """The released sample() applies kernel -1, the largest, to Algorithm 1's result."""
    spec, group = blur_of(cold, "Individual_Incremental"), "restore/Individual_Incremental/default"
    start = spec.degrade(cold["img"], fully(cold, spec))
    cold.agree(f"{group}/x_T", start)
    got = ColdAlgorithm1().restore(restorer_of(cold, spec), start)
    cold.agree(f"{group}/final", spec.degrade(got, fully(cold, spec)))


FADES = [("Incremental", 0.2, False), ("Constant", 2.0, False), ("Random_Incremental", 0.1, True)]


@pytest.mark.parametrize(("routine", "std", "discrete"), FADES)
def test_algorithms_under_inpainting(cold, routine, std, discrete):
    spec, noise = fade_of(cold, routine, std)
    # Only what is given to the sampler is cut to 8 bits, not what it degrades on its way.
    start = spec.degrade(cold["img"], fully(cold, spec), noise)
    check_algorithms(cold, f"fade/{routine}", spec, cut(start) if discrete else start, noise)


def test_algorithms_under_pixelate(cold):
    spec = Pixelate(levels=3)
    check_algorithms(cold, "res/factor_2", spec, spec.degrade(cold["img"], fully(cold, spec)))


class RecordedSnow(Snow):
    """Snow with the official layers."""

    recorded: ClassVar[torch.Tensor]

    def degrade(self, x0, severity, noise=None):
        layers = self.recorded[(severity - 1).clamp(min=0)]
        return self.blend(x0, layers[:, None], severity)


@pytest.mark.parametrize("name", ["decolor_linear", "snow_1"])
def test_algorithms_under_snow_and_desaturation_are_off_by_one(cold, name):
    RecordedSnow.recorded = cold["snow_1/layers"]
    spec = {
        "decolor_linear": Desaturate(levels=6, total_remove=True),
        "snow_1": RecordedSnow(levels=6, level=1, fix_brightness=False),
    }[name]
    start = spec.degrade(cold["img"], fully(cold, spec))
    check_algorithms(cold, name, spec, start, off_by_one=True)
    with torch.no_grad():
        exact = ColdAlgorithm2().restore(restorer_of(cold, spec), start)
    assert (exact - cold[f"{name}/x0_step_down/final"]).abs().max() > 0.1


def renamed(path, target, rename):
    held = torch.load(path, weights_only=True)
    ema = {new: v for k, v in held["ema"].items() if (new := rename(k)) is not None}
    torch.save({**held, "ema": ema}, target)
    return target


@pytest.mark.parametrize(
    "rename",
    [
        lambda k: k.removeprefix("module."),
        lambda k: k.replace("module.denoise_fn.", "denoise_fn.module."),
        lambda k: k.replace("denoise_fn.", "defade_fn."),
        lambda k: k.replace("module.denoise_fn.", "module.denoise_fn.module."),
    ],
    ids=["no module", "module inside", "defade", "module twice"],
)
def test_every_prefix_in_circulation_reads(z, tmp_path, rename):
    file = renamed(z.folder / "model.pt", tmp_path / "other.pt", rename)
    with torch.no_grad():
        z.agree("R", restorer_of(z, file=file).net(z["x"], z["t"].float()))


def test_a_bare_network_reads_under_a_degradation_without_kernels(z, tmp_path):
    held = torch.load(z.folder / "model.pt", weights_only=True)["ema"]
    bare = {k.partition("denoise_fn.")[2]: v for k, v in held.items() if "denoise_fn." in k}
    torch.save(bare, tmp_path / "bare.pt")
    model = model_of(z, {"name": "desaturate", "levels": 4})
    restorer = model.build()
    model.load(restorer, tmp_path / "bare.pt")
    with torch.no_grad():
        z.agree("R", restorer.net(z["x"], z["t"].float()))


def test_the_one_shot_network_beside_is_left_alone(z, tmp_path):
    """The snow and colour code saves a second network under a name that ends alike."""
    held = torch.load(z.folder / "model.pt", weights_only=True)
    beside = {
        k.replace("denoise_fn.", "one_shot_denoise_fn."): torch.zeros_like(v)
        for k, v in held["ema"].items()
    }
    torch.save({**held, "ema": {**beside, **held["ema"]}}, tmp_path / "two.pt")
    with torch.no_grad():
        z.agree("R", restorer_of(z, file=tmp_path / "two.pt").net(z["x"], z["t"].float()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": 3}, r"blurs in \d+ steps"),
        (
            {"routine": "Constant", "kernel_size": 11, "kernel_std": 2.0},
            "another kernel at step 0",
        ),
        ({"routine": "Constant", "kernel_size": 5, "kernel_std": 2.0}, "another kernel at step 0"),
    ],
)
def test_a_file_of_another_blur_is_refused(z, change, said):
    blur = trained_blur(z)
    if "levels" in change:
        change = {"levels": blur.levels - 1}
    model = model_of(z, {**blur.spec(), **change})
    with pytest.raises(UserError, match=said):
        model.load(model.build(), z.folder / "model.pt")
    ignored = model_of(z, {**blur.spec(), **change}, process="ignored")
    ignored.load(ignored.build(), z.folder / "model.pt")


def test_a_file_of_blur_is_refused_for_snow_and_the_other_way_round(z, tmp_path):
    model = model_of(z, {"name": "snow", "levels": 4})
    with pytest.raises(UserError, match=r"holds \d+ blur kernels"):
        model.load(model.build(), z.folder / "model.pt")
    bare = renamed(
        z.folder / "model.pt", tmp_path / "bare.pt", lambda k: k if "denoise_fn" in k else None
    )
    with pytest.raises(UserError, match="holds no blur kernels"):
        restorer_of(z, file=bare)
