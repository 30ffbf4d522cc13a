"""DDPM (Ho et al. 2020, https://arxiv.org/abs/2006.11239): hub pipelines, and models trained here.

A diffusers pipeline folder determines the network, the noise levels and the conventions of its
sampler; the first PyTorch port's checkpoints are read too. A recipe sets these fields itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    BetaSchedule,
    Classes,
    DDPMDenoiser,
    DDPMUNet,
    Habits,
    ImageShape,
    Model,
    Prediction,
    UserError,
    create,
    fill,
    find_diffusers,
    from_ddpm,
    load_weights,
    parsing,
    products,
    read_diffusers_weights,
)

__all__ = ["DDPM"]

_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
}


class DDPM(Model):
    """A network that predicts the noise of a discrete VP process; the defaults are CIFAR-10's."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "discrete"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "ddpm_ancestral"}

    network: dict[str, Any] = Field(default_factory=lambda: {"name": "ddpm_unet"})
    shape: ImageShape = (3, 32, 32)
    classes: Classes = 0
    steps: int = Field(default=1000, ge=2, le=100_000, description="T, number of diffusion steps")
    schedule: BetaSchedule = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    trained_betas: tuple[float, ...] | None = None
    prediction: Prediction = "epsilon"
    time_scale: float = Field(
        default=1.0, gt=0, description="ratio of the network's time to the step"
    )
    variance: Literal["small", "large"] = "large"
    clip: float | None = Field(default=1.0, gt=0, description="bound on D in its own sampler")
    grid: Literal["leading", "linspace", "trailing", "even"] = "leading"
    offset: int = Field(
        default=0, ge=0, le=100_000, description="offset of the leading grid's steps"
    )
    ends_clean: bool = Field(default=True, description="DDIM's last step goes to clean images")
    sigma_min: float | None = Field(
        default=None, gt=0, description="none: the process's least level"
    )
    sigma_max: float | None = Field(
        default=None, gt=0, description="none: the process's, at most 80"
    )

    @classmethod
    def of_folder(cls, given: Path | str) -> "DDPM":
        """Builds from a diffusers pipeline folder, or a name on the hub.

        Raises:
            UserError: If the network or scheduler is not supported.
            Pending: If a hub name is not in the cache.
        """
        return cls(**cls.opened(Path(given))[1])

    @classmethod
    def opened(cls, given: Path) -> tuple[Path, dict[str, Any]]:
        """Returns a pipeline's weights and configuration; a single file has no configuration.

        Raises:
            UserError: If the network or scheduler is not supported.
            Pending: If a hub name is not in the cache.
        """
        if given.is_file() and not (given.parent / "config.json").is_file():
            return given, {}
        folder = find_diffusers(given)
        where = str(folder.weights.parent)
        with parsing(folder.weights.parent, "a diffusers pipeline"):
            side, channels = _side(folder.unet, where), folder.unet.get("in_channels", 3)
            network = DDPMUNet.of_config(folder.unet, where=where)
            return folder.weights, {
                "network": network.spec(),
                "shape": (channels, side, side),
                "classes": folder.unet.get("num_class_embeds") or 0,
                **_process(folder.scheduler, where),
            }

    def build(self) -> nn.Module:
        """Builds a DDPMDenoiser over the raw network, `net`."""
        abar = products(
            self.schedule,
            self.steps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            trained_betas=self.trained_betas,
        )
        return DDPMDenoiser(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            abar,
            classes=self.classes,
            prediction=self.prediction,
            habits=Habits(self.variance, self.clip, self.grid, self.offset, self.ends_clean),
            time_scale=self.time_scale,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads diffusers' files, the PyTorch port's, or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                than this configuration.
        """
        state = read_diffusers_weights(weights)
        if any(name.startswith("net.") for name in state):
            load_weights(module, weights)
            return
        net: Any = module.net
        with parsing(weights, "weights of this architecture"):
            fill(net, from_ddpm(net, state), where=str(weights))


def _side(unet: Mapping[str, Any], where: str) -> int:
    size = unet.get("sample_size")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise UserError(
            f"'sample_size: {size}' is not a square image", where=where, expected="sample_size: 32"
        )
    return sides[0]


def _process(scheduler: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Reads the process's fields from `scheduler_config.json`, with diffusers' defaults."""
    option = scheduler.get
    checks = {
        "beta_schedule": (option("beta_schedule", "linear"), _SCHEDULES),
        "variance_type": (option("variance_type", "fixed_small"), tuple(_VARIANCES)),
        "timestep_spacing": (
            option("timestep_spacing", "leading"),
            ("leading", "linspace", "trailing"),
        ),
        "prediction_type": (
            option("prediction_type", "epsilon"),
            ("epsilon", "sample", "v_prediction"),
        ),
        "thresholding": (option("thresholding", False), (False,)),
        "rescale_betas_zero_snr": (option("rescale_betas_zero_snr", False), (False,)),
    }
    for key, (value, known) in checks.items():
        if value not in known:
            raise UserError(
                f"'{key}: {value}' of {option('_class_name', 'the scheduler')} is not supported",
                where=where,
                expected=" or ".join(map(str, known)),
            )
    betas = option("trained_betas")
    return {
        "steps": len(betas) if betas else option("num_train_timesteps", 1000),
        "schedule": checks["beta_schedule"][0],
        "beta_start": option("beta_start", 1e-4),
        "beta_end": option("beta_end", 0.02),
        "trained_betas": tuple(betas) if betas else None,
        "prediction": checks["prediction_type"][0],
        "variance": _VARIANCES[checks["variance_type"][0]],
        "clip": option("clip_sample_range", 1.0) if option("clip_sample", True) else None,
        "grid": checks["timestep_spacing"][0],
        "offset": option("steps_offset", 0),
        "ends_clean": option("set_alpha_to_one", True),
    }
