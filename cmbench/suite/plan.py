"""Contents of a plan: cells, the scores planned for each, and the jobs behind them."""

from dataclasses import dataclass, field
from typing import Any

from cmbench.cards.cards import PlacedCard
from cmbench.cards.open import SourcedModel
from cmbench.core.errors import Pending
from cmbench.core.yaml_source import Source
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Metric
from cmbench.samplers.base import Sampler
from cmbench.store.jobs import Job
from cmbench.store.store import Address
from cmbench.suite.networks import DataLookup
from cmbench.suite.spec import Suite

__all__ = ["Cell", "Plan", "PlannedScore"]


@dataclass(frozen=True)
class PlannedScore:
    """A metric of a cell: the job that gives it, or why it waits.

    Args:
        metric: The metric with its parameters.
        extractor: The feature space.
        job: Address of the score; None while pending.
        protocol: What the fingerprint is the hash of.
        pending: Why it waits.
    """

    metric: Metric
    extractor: FeatureExtractor
    job: Address | None
    protocol: dict[str, Any]
    pending: Pending | None = None


@dataclass(frozen=True)
class Cell:
    """One row of the leaderboard to be: a network under a sampler, from one seed.

    Args:
        identity: What `id` is the hash of.
        shards: Sampling jobs in order of their images.
        pending: Why the cell with all its scores waits, if it does.
    """

    id: str
    label: str
    card: PlacedCard
    axes: dict[str, Any]
    sampler: Sampler | None
    seed: int
    images: int
    identity: dict[str, Any]
    network: SourcedModel | None = None
    shards: tuple[Address, ...] = ()
    scores: tuple[PlannedScore, ...] = ()
    pending: Pending | None = None


@dataclass
class Plan:
    """The cells of a suite and every job behind them, in an order that respects needs.

    Args:
        waiting: Extractors whose scores wait, by name.
        left_out: Ids of the suite's cells that a tag leaves out: their records stay as they are.
    """

    suite: Suite
    source: Source
    data: DataLookup
    cells: list[Cell] = field(default_factory=list)
    jobs: dict[Address, Job] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, Pending] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    def add(self, job: Job) -> Address:
        """Adds a job once, however many cells need it."""
        self.jobs.setdefault(job.address, job)
        return job.address
