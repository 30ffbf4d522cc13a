"""What is kept of a cell: its identity, its scores, and what made them. No torch here.

A record holds nothing that differs between two runs of the same work: timings, hosts and versions
stand in `speed.json` and `provenance.json` beside the records, so equal work gives equal bytes.

    results/<suite>/
      records/<cell id>.json      one Record
      samples/<cell id>.png       the first 64 images, 8 x 8, no gap, at the cell's own size
      training/<name>.json        a TrainingLog of each model trained for the suite
      speed.json                  cell id -> Speed
      provenance.json             Provenance of the last run
      suite.yaml                  the suite's text as it was run
      set_aside/                  finished cells that the suite no longer plans
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cmbench.core.errors import brief
from cmbench.core.names import Key, is_name

__all__ = [
    "SCHEMA",
    "PendingScore",
    "Provenance",
    "PublishedScore",
    "Record",
    "ScoreRecord",
    "Speed",
    "Training",
    "TrainingLog",
    "TrainingPoint",
]

SUITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Pattern of a suite's name, which is a folder's."""

SCHEMA = 1
"""Version of the record's layout; raised when a field changes its meaning."""


Scalar = str | int | float | bool | None

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A digest, whole or its first digits: it is used as a file's name, so it can't be a path."""
Shown = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A text that tables and plots show."""
Size = Annotated[float, Field(ge=-1e150, le=1e150)]
"""A number whose square is finite: what errors are added by."""


def _only_names(value: dict[str, Any]) -> dict[str, Any]:
    """Refuses, at any depth, a component whose name could be a path: names choose what loads."""
    inner: list[Any] = [value]
    while inner:
        held = inner.pop()
        if isinstance(held, dict):
            if "name" in held and not is_name(held["name"]):
                raise ValueError(f"{brief(held['name'])} is no component's name")
            inner += held.values()
        elif isinstance(held, list):
            inner += held
    return value


Specification = Annotated[dict[str, Any], AfterValidator(_only_names)]
"""A component, or several, with their parameters."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScoreRecord(_Frozen):
    """One number with its uncertainty and its protocol.

    Args:
        name: Machine name of the score: `frechet_distance`, `precision`.
        title: How tables call it: "FID", "FD-EffNet", "precision".
        value: The number.
        error: Standard error from the sampling of the generated images; None if unknown.
        interval: 95% interval, (low, high); None if unknown.
        count: Generated images used.
        higher_is_better: Direction.
        fingerprint: SHA-256 of `protocol`; tables never mix two in a column.
        protocol: Data set and split, count, quantisation, resize, extractor, reference, metric.
        details: Other numbers that belong to it, such as the bias at this count.
        key: Key of the job that computed it: equal key, equal number.
    """

    name: str
    title: Shown
    value: Size
    error: Annotated[Size, Field(ge=0)] | None = None
    interval: tuple[Size, Size] | None = None
    count: int = Field(ge=0)
    higher_is_better: bool
    fingerprint: Id
    protocol: Specification
    details: dict[str, float] = Field(default_factory=dict)
    key: Key | Literal[""] = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"interval: {self.interval[0]} to {self.interval[1]} is reversed")
        return self


class PendingScore(_Frozen):
    """A score that waits for something (weights of its extractor) while the others are there."""

    name: str
    title: str
    reason: str
    command: str


class Training(_Frozen):
    """What training the model cost, teacher apart.

    Args:
        seed: The seed it was trained from; None in records of older versions.
        recipe_digest_without_seed: Hash of the recipe but for its name and seed: equal for
            trainings that repeat each other. Empty in records of older versions.
    """

    recipe: str
    recipe_digest: str
    seed: int | None = None
    recipe_digest_without_seed: str = ""
    images: int
    steps: int
    evaluations_per_image: float = Field(
        description="forward passes an image, backward = 2 forwards"
    )
    teacher: str | None = None


class PublishedScore(_Frozen):
    """A number printed by the authors, to stand beside the measured one."""

    metric: str
    value: float
    nfe: int
    source: str


class Record(_Frozen):
    """One cell: a model under a sampler at a number of evaluations, with its scores.

    Args:
        cell: The cell's id: SHA-256 of what changes its numbers, first 16 digits.
        label: The line it belongs to in plots: "CD (LPIPS)", the same for all NFE.
        model: `family/card`.
        axes: The values that the suite's sweep gave it: objective, distance, ...
        nfe: Network evaluations an image, counted; None until the cell is done.
        identity: The specification that `cell` is the hash of.
        shards: SHA-256 of each shard's pixels, in order: what `cmbench verify` compares.
        reason: Why it failed or is pending.
        command: What brings a pending cell forward.
    """

    schema_version: int = SCHEMA
    suite: str = Field(pattern=SUITE_NAME)
    suite_version: int
    cell: Id
    status: Literal["done", "failed", "pending"]
    label: Shown
    model: str
    family: str
    axes: dict[str, Scalar] = Field(default_factory=dict)
    sampler: Specification = Field(default_factory=dict)
    nfe: Annotated[float, Field(ge=0)] | None = None
    seed: int
    images: int = Field(ge=0)
    shape: tuple[int, int, int] | None = None
    parameters: Annotated[int, Field(ge=0)] | None = None
    flops_per_image: Annotated[float, Field(ge=0)] | None = None
    scores: list[ScoreRecord] = Field(default_factory=list)
    pending_scores: list[PendingScore] = Field(default_factory=list)
    training: Training | None = None
    published: list[PublishedScore] = Field(default_factory=list)
    identity: Specification = Field(default_factory=dict)
    shards: list[str] = Field(default_factory=list)
    reason: str = ""
    command: str = ""

    def score(self, name: str) -> ScoreRecord | None:
        """The score called `name`, or None."""
        return next((s for s in self.scores if s.name == name), None)


class Speed(_Frozen):
    """Measured cost of a cell: differs from run to run, so it is kept apart from the record."""

    seconds_per_image: float = Field(ge=0)
    batch: int = Field(ge=0)
    device: str
    threads: int | None = None
    peak_memory_bytes: int | None = None


class TrainingPoint(_Frozen):
    """One logged moment of a training."""

    step: int
    images: int
    loss: float
    extra: dict[str, float] = Field(default_factory=dict)


class TrainingLog(_Frozen):
    """The loss curve of one model trained for the suite."""

    label: str
    recipe: str
    recipe_digest: str
    points: list[TrainingPoint]


class Provenance(_Frozen):
    """Where the results come from."""

    cmbench: str
    command: str
    started: str
    finished: str
    git_commit: str | None
    git_dirty: bool | None
    python: str
    platform: str
    device: str
    threads: int
    packages: dict[str, str]
    data: dict[str, str] = Field(description="data set to fingerprint")
    suite_digest: str
