"""The one import for plugins: `from cmbench.api import Denoiser, Model, ...`."""

from cmbench.core.component import Component
from cmbench.core.errors import Pending, UserError
from cmbench.core.generator import Generator
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.datasets._base import Dataset, ImageSet
from cmbench.degradations._base import Degradation
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.model import Model, load_weights
from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser
from cmbench.distances._base import Distance
from cmbench.features._base import Extractor, FeatureExtractor
from cmbench.metrics._base import Features, Metric, MetricError, Moments, Reference, Score
from cmbench.nets._base import Network
from cmbench.samplers._base import Sampler
from cmbench.testing import oracles
from cmbench.train.draws import Draws
from cmbench.train.objectives._base import Loss, Objective, Setup

__all__ = [
    "Component",
    "ConsistencyFunction",
    "Dataset",
    "Degradation",
    "Denoiser",
    "Distance",
    "Draws",
    "EDMDenoiser",
    "Extractor",
    "FeatureExtractor",
    "Features",
    "Generator",
    "ImageSet",
    "Loss",
    "Metric",
    "MetricError",
    "Model",
    "Moments",
    "Network",
    "Noise",
    "Objective",
    "Pending",
    "Reference",
    "Sampler",
    "Score",
    "Setup",
    "UserError",
    "create",
    "expand",
    "load_weights",
    "oracles",
]
