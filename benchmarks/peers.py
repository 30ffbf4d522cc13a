"""Sampling and training steps against plain loops and diffusers, in one process.

    python benchmarks/peers.py [--rounds 5] [--batch 16] [--channels 32,64]

Sampling: the same network, the same initial noise, the same levels; Heun against a loop written
as EDM's algorithm reads, DDIM against diffusers' DDIMPipeline with the same noise predictor.
Training: one step of consistency distillation and of consistency training against a plain loop of
the published algorithm (eager Adam, average by a Python loop, an own target network). Rounds are
interleaved; told is the median ratio, peer / cmbench, of seconds of this process's CPU: above 1
cmbench is faster.
"""

import argparse
import copy
import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.ddpm import DDPMDenoiser
from cmbench.denoise.grids import karras_grid
from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser
from cmbench.samplers._base import BoundGenerator
from cmbench.train.draws import Draws
from cmbench.train.objectives._base import Setup

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


def training(name: str, net: nn.Module, batch: int) -> tuple[Callable, Callable]:
    """One step of the objective, with its optimiser and averages, against a plain one."""
    teacher = EDMDenoiser(copy.deepcopy(net), SHAPE).eval()
    images = torch.rand(batch, *SHAPE) * 2 - 1
    spec = {"cd": {"name": "cd", "mu": 0.95}, "ct": {"name": "ct", "s0": 2, "s1": 60}}[name]
    own = ConsistencyFunction(copy.deepcopy(net), SHAPE).to(memory_format=torch.channels_last)
    objective, device = create("objective", spec), torch.device("cpu")
    setup = Setup(own, teacher, create("distance", "l2").build(device), 1000, device)
    loss = objective.build(setup)
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

    student = ConsistencyFunction(copy.deepcopy(net), SHAPE)
    target, ema = copy.deepcopy(student), copy.deepcopy(student)
    slow = torch.optim.Adam(student.parameters(), 1e-4, foreach=False)
    grid = karras_grid(18).float()

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

    return ours, plain


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", default="32,64")
    given = parser.parse_args()
    torch.set_num_threads(1)
    net = network(tuple(int(c) for c in given.channels.split(",")))
    pairs: dict[str, Callable[[], tuple[Callable, Callable]]] = {
        "heun, against EDM's loop": lambda: against_edm(net, given.batch),
        "ddim, against diffusers": lambda: against_diffusers(given.batch),
        "cd step, against a plain loop": lambda: training("cd", net, given.batch),
        "ct step, against a plain loop": lambda: training("ct", net, given.batch),
    }
    for title, make in pairs.items():
        ratios = compared(*make(), given.rounds)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        sys.stdout.write(f"{title}: {statistics.median(ratios):.2f} ({spread})\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
