"""The machine a run is on: which device, and what is worth keeping for provenance."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from cmbench.core.errors import UserError

__all__ = ["device_name", "git_state", "package_versions", "pick_device"]

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "safetensors",
    "torch-fidelity",
    "lpips",
    "pydantic",
    "matplotlib",
)


def pick_device(name: str) -> torch.device:
    """The device asked for; `auto` is the first GPU, or the CPU.

    Raises:
        UserError: If this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device '{name}' can't be used: {str(error).splitlines()[0]}",
            expected="auto, cpu, cuda or cuda:N",
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """Returns the device's name in provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.processor() or platform.machine()})"


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the git checkout at `folder` and whether it has changes; None outside one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
