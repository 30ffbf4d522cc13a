"""Cold diffusion's degradations, and its samplers on recorded restorations, to the authors'
numbers; with the network itself: `test_cold_networks.py`.
"""

import numpy as np
import pytest
import torch
from authors_vectors import Vectors
from cold_settings import blur_of, cut, fade_of

from cmbench.degradations.desaturate import Desaturate
from cmbench.degradations.pixelate import Pixelate
from cmbench.degradations.snow import Snow
from cmbench.denoise.cold import Restorer
from cmbench.samplers.cold_algorithm1 import ColdAlgorithm1
from cmbench.samplers.cold_algorithm2 import ColdAlgorithm2

pytestmark = pytest.mark.parity

ROUTINES = [
    "Incremental",
    "Constant",
    "Constant_reflect",
    "Exponential",
    "Exponential_reflect",
    "Individual_Incremental",
    "Special_6_routine",
]
RESOLUTIONS = {
    "factor_2": "Incremental_factor_2",
    "area_factor_2": "Incremental_area_factor_2",
    "bilinear": "Incremental_bilinear",
    "area": "Incremental_area",
    "bicubic_blur": "Incremental_bicubic_with_blur",
}


@pytest.fixture
def cold():
    return Vectors("cold")


def every_severity(degradation, images, levels, noise=None):
    severities = [torch.full((len(images),), s) for s in range(1, levels + 1)]
    return torch.stack([degradation.degrade(images, s, noise) for s in severities])


@pytest.mark.parametrize(
    ("name", "routine"),
    [("cold", routine) for routine in ROUTINES] + [("cold_model2", "Exponential_reflect")],
)
def test_blur(name, routine):
    blurs = Vectors(name)
    blur = blur_of(blurs, routine)
    blurs.agree(f"blur/{routine}/D", every_severity(blur, blurs["img"], blur.levels))
    name = f"blur/{routine}/q_sample"
    if name in blurs:
        blurs.agree(name, blur.degrade(blurs["img"], blurs["t_q"] + 1))
    if f"blur/{routine}/kernels" in blurs:
        steps = range(len(blurs[f"blur/{routine}/kernels"]))
        sides = [blur.kernel(step) for step in steps]
        kernels = torch.stack([side[:, None] * side for side in sides])
        blurs.agree(f"blur/{routine}/kernels", kernels.float())


def test_discrete_blur_ends_in_the_mean_and_trains_on_bytes(cold):
    blur = blur_of(cold, "Exponential", discrete=True)
    last = torch.full((2,), blur.levels)
    cold.agree("restore/Exponential/x0_step_down_discrete/x_T", blur.degrade(cold["img"], last))
    got = cut(blur.degrade(cold["img"], cold["t_q"] + 1))
    cold.agree("blur/Exponential/q_sample_discrete", got)
    got = cut(blur.degrade(cold["img"], last))
    cold.agree("blur/Exponential/q_sample_discrete_last", got)


FADES = [("Incremental", 0.2, False), ("Constant", 2.0, False), ("Random_Incremental", 0.1, True)]


@pytest.mark.parametrize(("routine", "std", "discrete"), FADES)
def test_inpainting(cold, routine, std, discrete):
    spec, noise = fade_of(cold, routine, std)
    got = spec.degrade(cold["img"], cold["t_q"] + 1, noise)
    cold.agree(f"fade/{routine}/q_sample", cut(got) if discrete else got)


@pytest.mark.parametrize("short", RESOLUTIONS)
def test_pixelate(cold, short):
    levels = len(cold[f"res/{short}/D"])
    spec = Pixelate(levels=levels, routine=RESOLUTIONS[short])
    cold.agree(f"res/{short}/D", every_severity(spec, cold["img"], levels))


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("decolor_linear", Desaturate(levels=6, total_remove=True)),
        ("decolor_constant", Desaturate(levels=6, routine="Constant", factor=0.9)),
    ],
)
def test_desaturate(cold, name, spec):
    cold.agree(f"{name}/D", every_severity(spec, cold["img"], spec.levels))


@pytest.mark.parametrize(("name", "level", "fix"), [("snow_1", 1, False), ("snow_3_fix", 3, True)])
def test_snow(cold, name, level, fix):
    spec, images = Snow(levels=6, level=level, fix_brightness=fix), cold["img"]
    layers = cold[f"{name}/layers"]
    # The official layer is drawn from numpy's legacy generator with this seed, coin after layer.
    drawn = np.random.RandomState(123321).normal(size=layers.shape[1:])
    base = torch.from_numpy(drawn).float().expand(6, 1, -1, -1)
    ours = spec.layers(base, torch.arange(1, 7), torch.ones(6, dtype=torch.bool))
    cold.agree(f"{name}/layers", ours[:, 0])
    blended = [
        spec.blend(images, layer[None, None], torch.full((2,), i + 1))
        for i, layer in enumerate(layers)
    ]
    cold.agree(f"{name}/D", torch.stack(blended))


class Replayed(Restorer):
    """Answers with the official network's recorded outputs, and keeps what it was asked."""

    def __init__(self, outputs, degradation):
        super().__init__(outputs.shape[2:], degradation)
        self.outputs, self.asked, self.severities = outputs, [], []

    def forward(self, x, severity, labels=None):
        self.asked.append(x)
        self.severities.append(int(severity[0]))
        return self.outputs[len(self.asked) - 1]


@pytest.mark.parametrize(
    ("name", "routine"),
    [("cold", "Special_6_routine"), ("cold_model2", "Exponential_reflect")],
)
def test_algorithm_2_on_recorded_restorations(name, routine):
    vectors = Vectors(name)
    group, blur = f"restore/{routine}/x0_step_down", blur_of(vectors, routine)
    start = blur.degrade(vectors["img"], torch.full((2,), blur.levels))
    vectors.agree(f"{group}/x_T", start)
    restorer = Replayed(vectors[f"{group}/X0s"], blur)
    last = ColdAlgorithm2().restore(restorer, start)
    vectors.agree(f"{group}/Xts", torch.stack(restorer.asked))
    vectors.agree(f"{group}/final", last)
    assert restorer.severities == list(range(blur.levels, 0, -1))


def test_algorithm_2_from_a_constant_with_broken_symmetry(cold):
    """The official all_sample(): 0.001 noise added to the mean, subtracted at the end."""
    group = "restore/Exponential/x0_step_down_discrete"
    blur = blur_of(cold, "Exponential", discrete=True)
    start = blur.degrade(cold["img"], torch.full((2,), blur.levels)) + 0.001 * cold["noise"]
    outputs = cold[f"{group}/X0s"]
    restorer = Replayed(outputs, blur)
    last = ColdAlgorithm2().restore(restorer, start)
    cold.agree(f"{group}/Xts", torch.stack(restorer.asked))
    told = cold.meta["arrays"][f"{group}/X0s"]["atol"]
    assert (last - 0.001 * cold["noise"] - outputs[-1]).abs().max() <= told


def test_off_by_one_ends_idle(cold):
    """The released snow and desaturation samplers return the last step's input."""
    spec = Desaturate(levels=6, total_remove=True)
    restorer = Replayed(torch.randn(6, 2, 3, 16, 16), spec)
    start = spec.degrade(cold["img"], torch.full((2,), 6))
    cold.agree("decolor_linear/x0_step_down/x_T", start)
    last = ColdAlgorithm2(off_by_one=True).restore(restorer, start)
    torch.testing.assert_close(last, restorer.asked[-1])
    assert not torch.equal(ColdAlgorithm1().restore(Replayed(restorer.outputs, spec), start), last)
