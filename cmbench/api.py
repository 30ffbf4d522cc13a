"""The one import for plugins: `from cmbench.api import Denoiser, Model, ...`."""

from cmbench.core.bounds import Classes, Depth, ImageShape, Levels, Seed, Steps, Width, Widths
from cmbench.core.component import Component
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing
from cmbench.core.generator import Generator
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.core.tensor_files import read_safetensors
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets.base import Dataset, ImageSet
from cmbench.degradations.base import Degradation
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.beta_schedules import BetaSchedule, products
from cmbench.denoise.binomial import BinomialDiffusion
from cmbench.denoise.cold import NetworkRestorer, Restorer
from cmbench.denoise.ddpm import DDPMDenoiser, Habits, Prediction
from cmbench.denoise.discrete_levels import noise_schedule
from cmbench.denoise.flow import FlowDenoiser, JumpDenoiser
from cmbench.denoise.model import Model, load_weights
from cmbench.denoise.ncsn import NCSNDenoiser, ladder
from cmbench.denoise.oneshot import OneShot
from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser
from cmbench.denoise.released_denoisers import (
    DiscreteVPDenoiser,
    IDDPMDenoiser,
    OpenAIConsistency,
    OpenAIDenoiser,
    VEDenoiser,
    VPDenoiser,
)
from cmbench.denoise.sde import SDE, VE, VP, SubVP
from cmbench.denoise.sde_denoiser import Labels, SDEDenoiser
from cmbench.denoise.sohl_dickstein import ReverseGaussian
from cmbench.distances.base import Distance
from cmbench.features.base import Extractor, FeatureExtractor
from cmbench.metrics.base import Features, Metric, MetricError, Moments, Reference, Score
from cmbench.nets.base import Network
from cmbench.nets.ddpm_unet import DDPMUNet
from cmbench.released.cold_names import ColdStates, cold_states, from_cold
from cmbench.released.ddpm_names import from_ddpm
from cmbench.released.diffusers_folder import (
    DiffusersFolder,
    find_diffusers,
    read_diffusers_weights,
)
from cmbench.released.edm_openai_names import fill, from_edm, from_flax, from_openai
from cmbench.released.edm_pickle import EDMFile, read_edm
from cmbench.released.flax_msgpack import read_flax
from cmbench.released.ncsn_names import from_ncsn, ncsn_states
from cmbench.released.score_sde_names import from_score_sde, score_sde_states
from cmbench.released.torch_state import read_state_dict, read_torch
from cmbench.samplers.base import Sampler
from cmbench.testing import oracles
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = [
    "SDE",
    "VE",
    "VP",
    "ArrayImages",
    "BetaSchedule",
    "BinomialDiffusion",
    "Classes",
    "ColdStates",
    "Component",
    "ConsistencyFunction",
    "DDPMDenoiser",
    "DDPMUNet",
    "Dataset",
    "Degradation",
    "Denoiser",
    "Depth",
    "DiffusersFolder",
    "DiscreteVPDenoiser",
    "Distance",
    "Draws",
    "EDMDenoiser",
    "EDMFile",
    "Extractor",
    "FeatureExtractor",
    "Features",
    "FlowDenoiser",
    "Generator",
    "Habits",
    "IDDPMDenoiser",
    "ImageSet",
    "ImageShape",
    "JumpDenoiser",
    "Labels",
    "Levels",
    "Loss",
    "Metric",
    "MetricError",
    "Model",
    "Moments",
    "NCSNDenoiser",
    "Network",
    "NetworkRestorer",
    "Noise",
    "Objective",
    "OneShot",
    "OpenAIConsistency",
    "OpenAIDenoiser",
    "Pending",
    "Prediction",
    "Reference",
    "Restorer",
    "ReverseGaussian",
    "SDEDenoiser",
    "Sampler",
    "Score",
    "Seed",
    "Setup",
    "Steps",
    "SubVP",
    "UserError",
    "VEDenoiser",
    "VPDenoiser",
    "Width",
    "Widths",
    "cold_states",
    "create",
    "expand",
    "fill",
    "find_diffusers",
    "from_cold",
    "from_ddpm",
    "from_edm",
    "from_flax",
    "from_ncsn",
    "from_openai",
    "from_score_sde",
    "ladder",
    "load_weights",
    "ncsn_states",
    "noise_schedule",
    "oracles",
    "parsing",
    "products",
    "read_diffusers_weights",
    "read_edm",
    "read_flax",
    "read_safetensors",
    "read_state_dict",
    "read_torch",
    "score_sde_states",
]
