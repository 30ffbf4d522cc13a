"""Sampling and training steps against plain loops and diffusers, in one process.

    python benchmarks/peers.py [--rounds 5] [--batch 16] [--channels 32,64] [--images 64]
        [--only cd]

Sampling: the same network, the same initial noise, the same levels; Heun against a loop written
as EDM's algorithm reads, DDIM against diffusers' DDIMPipeline with the same noise predictor.
Training: one step of consistency distillation and of consistency training against a plain loop of
the published algorithm (eager Adam, average by a Python loop, an own target network); and one of
three students of one teacher, trained in step, against three such loops. Leaderboard:
a suite of three cells (NFE 1, 2, 4) with Frechet distance and KID, run in a new cache and
reported, against a script that samples each cell alone and calls torch-fidelity for it with the
same extractor, its reference cached after the first call; same images. Rounds are
interleaved; printed is the median ratio, peer / cmbench, of seconds of this process's CPU: above
1 cmbench is faster.
"""

import argparse
import copy
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import torch_fidelity
from overhead import MODEL, SUITE, Forwards, suite
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from cmbench.core.images import to_pixels
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.ddpm import DDPMDenoiser
from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers.base import BoundGenerator
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup, Shared

SHAPE = (3, 32, 32)


def compared(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> list[float]:
    """Ratios peer / ours of seconds of CPU, interleaved, after one call of each."""
    ours(), peer()
    ratios = []
    for _ in range(rounds):
        spent = []
        for work in (ours, peer):
            begun = time.process_time()
            work()
            spent.append(time.process_time() - begun)
        ratios.append(spent[1] / spent[0])
    return ratios


def network(channels: tuple[int, ...]) -> nn.Module:
    """A raw network, seeded."""
    torch.manual_seed(0)
    made = create("network", {"name": "compact_unet", "channels": channels}).build(SHAPE, 0)
    for p in made.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.03)  # Its last layer starts at zero, which would test little.
    return made.eval()


def against_edm(net: nn.Module, batch: int) -> tuple[Callable, Callable]:
    """Heun, 9 steps, 17 evaluations: EDM's deterministic algorithm as it reads."""
    plain = EDMDenoiser(copy.deepcopy(net), SHAPE).eval()
    ours = EDMDenoiser(copy.deepcopy(net), SHAPE).eval().to(memory_format=torch.channels_last)
    generator = BoundGenerator(ours, create("sampler", {"name": "heun", "steps": 9}))
    start = Noise(0, range(batch), SHAPE).normal(0).double()

    @torch.no_grad()
    def peer() -> Tensor:
        levels = torch.cat([karras_grid(9), torch.zeros(1, dtype=torch.float64)])
        x = start * levels[0]
        for now, then in itertools.pairwise(levels):
            d = (x - plain(x, now.expand(batch)).double()) / now
            ahead = x + (then - now) * d
            if then > 0:
                more = (ahead - plain(ahead, then.expand(batch)).double()) / then
                ahead = x + (then - now) * (d + more) / 2
            x = ahead
        return x

    def own() -> Tensor:
        return generator.generate(Noise(0, range(batch), SHAPE))

    assert float((own() - peer()).abs().max()) < 1e-3
    return own, peer


def against_diffusers(batch: int) -> tuple[Callable, Callable]:
    """DDIM, 10 steps, on diffusers' own small UNet2DModel and DDIMPipeline."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(32, 64), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, norm_num_groups=8,
    ).eval()  # fmt: skip
    scheduler = DDIMScheduler(1000, clip_sample=True, timestep_spacing="leading")
    pipeline = DDIMPipeline(copy.deepcopy(unet), scheduler)
    pipeline.set_progress_bar_config(disable=True)

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet.to(memory_format=torch.channels_last)

        def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.unet(x, time).sample

    denoiser = DDPMDenoiser(Told(), SHAPE, scheduler.alphas_cumprod.double())
    sampler = create(
        "sampler",
        {"name": "ddim", "steps": 10, "grid": "leading", "clip": True, "rederive": False},
    )
    generator = BoundGenerator(denoiser.eval(), sampler)
    first = Noise(0, range(batch), SHAPE).normal(0)

    import diffusers.pipelines.ddim.pipeline_ddim as pipes

    pipes.randn_tensor = lambda *args, **kwargs: first.clone()

    def peer() -> Tensor:
        made = pipeline(batch, num_inference_steps=10, output_type="np").images
        return torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1

    def own() -> Tensor:
        return generator.generate(Noise(0, range(batch), SHAPE)).clamp(-1, 1)

    gap = float((own().float() - peer()).abs().max())
    assert gap < 0.02, gap
    return own, peer


def training(
    name: str, net: nn.Module, batch: int, students: int = 1
) -> tuple[Callable, Callable]:
    """One step of each student, with its optimiser and averages, against as many plain ones."""
    teacher = EDMDenoiser(copy.deepcopy(net), SHAPE).eval()
    images, shared = torch.rand(batch, *SHAPE) * 2 - 1, Shared()
    own = [_own_step(name, net, teacher, images, shared) for _ in range(students)]
    plain = [_plain_step(name, net, teacher, images) for _ in range(students)]
    return lambda: [step() for step in own], lambda: [step() for step in plain]


def _own_step(
    name: str, net: nn.Module, teacher: nn.Module, images: Tensor, shared: Shared
) -> Callable[[], None]:
    spec = {"cd": {"name": "cd", "mu": 0.95}, "ct": {"name": "ct", "s0": 2, "s1": 60}}[name]
    own = ConsistencyFunction(copy.deepcopy(net), SHAPE).to(memory_format=torch.channels_last)
    objective, device = create("objective", spec), torch.device("cpu")
    distance, batch = create("distance", "l2").build(device), len(images)
    loss = objective.build(Setup(own, teacher, distance, 1000, device, shared))
    parameters = list(own.parameters())
    fast = torch.optim.Adam(parameters, 1e-4, foreach=True)
    average = [p.detach().clone() for p in parameters]
    count = iter(range(10**6))
    last = images.to(memory_format=torch.channels_last)

    def ours() -> None:
        step = next(count)
        fast.zero_grad(set_to_none=True)
        losses = loss(last, None, step, Draws(0, step, batch, (0, batch), device))
        losses.mean().backward()
        fast.step()
        loss.after_step(step)
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 0.001)

    return ours


def _plain_step(
    name: str, net: nn.Module, teacher: nn.Module, images: Tensor
) -> Callable[[], None]:
    student = ConsistencyFunction(copy.deepcopy(net), SHAPE)
    target, ema = copy.deepcopy(student), copy.deepcopy(student)
    slow = torch.optim.Adam(student.parameters(), 1e-4, foreach=False)
    grid, batch = karras_grid(18).float(), len(images)

    def plain() -> None:
        slow.zero_grad()
        index = torch.randint(17, (batch,))
        t, u = grid[index], grid[index + 1]
        noise = torch.randn_like(images)
        x_t = images + t[:, None, None, None] * noise
        with torch.no_grad():
            x_u = images + u[:, None, None, None] * noise
            if name == "cd":
                tt, uu = t[:, None, None, None], u[:, None, None, None]
                d = (x_t - teacher(x_t, t)) / tt
                ahead = x_t + (uu - tt) * d
                x_u = x_t + (uu - tt) * (d + (ahead - teacher(ahead, u)) / uu) / 2
            aim = target(x_u, u)
        (student(x_t, t) - aim).pow(2).mean().backward()
        slow.step()
        with torch.no_grad():
            for kept, rate in ((target, 0.95), (ema, 0.999)):
                for a, b in zip(kept.parameters(), student.parameters(), strict=True):
                    a.mul_(rate).add_(b, alpha=1 - rate)

    return plain


class Extractor(FeatureExtractorBase):
    """The suite's extractor as torch-fidelity calls it."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)
        self.own = create("features", "efficientnet_lite0").build(torch.device("cpu"))
        self.feature_extractor_internal_dtype = torch.float32

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of layers."""
        return ("pool",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The layer of any metric."""
        return "pool"

    @staticmethod
    def can_be_compiled() -> bool:
        """Not here."""
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """Images of the suite's shape, (1, 3, 32, 32)."""
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Features (B, D) of uint8 images (B, C, H, W)."""
        return (self.own(pixels)["pool"],)


class Pixels(Dataset):
    """uint8 images as torch-fidelity reads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def leaderboard(folder: Path, count: int) -> tuple[Callable, Callable]:
    """A suite to its report, and a script of torch-fidelity calls, for cells of NFE 1, 2, 4."""
    (folder / "models").mkdir()
    (folder / "models" / "measured.py").write_text(MODEL.format(channels=(32, 64)))
    text = SUITE.format(images=count, sampler="multistep_nested")
    (folder / "overhead.yaml").write_text(text)
    torch_fidelity.register_feature_extractor("suite's", Extractor)
    real = torch.as_tensor(create("dataset", "digits").open(None).pixels(range(64)))

    def script() -> None:
        with tempfile.TemporaryDirectory() as cache:
            for steps in (1, 2, 4):
                cell(steps, cache)

    def cell(steps: int, cache: str) -> None:
        denoiser = create("model", "measured").build().eval().to(memory_format=torch.channels_last)
        sampler = create("sampler", {"name": "multistep_nested", "steps": steps})
        generator = BoundGenerator(denoiser, sampler)
        parts = [range(i, min(i + 64, count)) for i in range(0, count, 64)]
        made = [to_pixels(generator.generate(Noise(0, part, SHAPE)), "round") for part in parts]
        torch_fidelity.calculate_metrics(
            input1=Pixels(torch.cat(made)), input2=Pixels(real), fid=True, kid=True, cuda=False,
            feature_extractor="suite's", feature_layer_fid="pool", feature_layer_kid="pool",
            kid_subset_size=64, batch_size=64, verbose=False, cache_root=cache,
            input2_cache_name="real", save_cpu_ram=True,
        )  # fmt: skip

    return lambda: suite(folder, defaultdict(list), Forwards()), script


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", default="32,64")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", default="", help="rows whose title begins so")
    given = parser.parse_args()
    torch.set_num_threads(1)
    net = network(tuple(int(c) for c in given.channels.split(",")))
    pairs: dict[str, Callable[[], tuple[Callable, Callable]]] = {
        "heun, against EDM's loop": lambda: against_edm(net, given.batch),
        "ddim, against diffusers": lambda: against_diffusers(given.batch),
        "cd step, against a plain loop": lambda: training("cd", net, given.batch),
        "cd steps of three students, against plain loops": lambda: training(
            "cd", net, given.batch, 3
        ),
        "ct step, against a plain loop": lambda: training("ct", net, given.batch),
    }
    place = tempfile.TemporaryDirectory()
    os.chdir(place.name)
    pairs["leaderboard, against torch-fidelity a cell"] = lambda: leaderboard(
        Path(place.name), given.images
    )
    for title, make in pairs.items():
        if not title.startswith(given.only):
            continue
        ratios = compared(*make(), given.rounds)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        sys.stdout.write(f"{title}: {statistics.median(ratios):.2f} ({spread})\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
