"""A suite: what to compare, under which protocol, as one YAML file.

    suite: digits_nfe
    dataset: digits
    images: {count: 2000}
    features: digits_classifier
    metrics: [frechet_distance, {name: precision_recall, k: 3}]
    runs:
      - model: edm/digits
        sampler: heun
        nfe: [1, 3, 5, 9, 17, 35]
      - model: consistency/digits
        train: {objective: [cd, ct], distance: [l1, l2]}
        nfe: [1, 2, 4]

A list under `train`, `sampler`, `nfe` or `steps` is an axis: the cells are the product.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from cmbench.core.bounds import MOST_STEPS, Seed
from cmbench.core.errors import UserError, nearest, unknown_name
from cmbench.core.images import Quantisation
from cmbench.core.loader import bundled_root, roots
from cmbench.core.names import CardName, ComponentName, is_name
from cmbench.core.paths import user_path
from cmbench.core.yaml_source import Source, read_yaml, validate
from cmbench.record.schema import SUITE_NAME
from cmbench.stats.findings import Finding

__all__ = [
    "DECOYS",
    "Images",
    "MetricEntry",
    "ReferenceEntry",
    "RunEntry",
    "Suite",
    "find_suite",
    "read_suite",
]

ComponentSpec = str | dict[str, Any]
DECOYS = ("real", "train", "memoriser", "blurred", "jpeg", "mode_dropper", "gaussian", "noise")
"""Floors, ceilings and frauds that a suite may score beside its models (`decoys: true`)."""


_MOST_SHARDS = 20_000
"""Most jobs that the images of one cell are cut into."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Images(_Entry):
    """How many images a cell is judged by, and from which seeds.

    Args:
        count: Generated images per cell.
        seeds: Each seed is a cell of its own; reports show them as one row.
        shard: Images a job makes before it is saved: what a kill can lose at most.
    """

    count: int = Field(ge=2, le=10_000_000)
    seeds: Annotated[list[Seed], BeforeValidator(_listed)] = Field(
        default=[0], min_length=1, max_length=1000
    )
    shard: int = Field(default=500, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _shards(self) -> Self:
        if self.count > _MOST_SHARDS * self.shard:
            raise ValueError(
                f"{self.count} images in shards of {self.shard} are over {_MOST_SHARDS} jobs; "
                f"expected shard: {-(-self.count // _MOST_SHARDS)} or more"
            )
        return self


class ReferenceEntry(_Entry):
    """What generated images are compared with.

    Args:
        dataset: Another data set than the suite's (a held-out split).
        count: The first so many images; all of them by default.
        files: Extractor name to a file of statistics made by `cmbench stats build`, relative to
            the suite: scores in that extractor's features then don't need the data set.
    """

    dataset: ComponentSpec | None = None
    count: int | None = Field(default=None, ge=2, le=100_000_000)
    files: dict[ComponentName, str] = Field(default_factory=dict)


class MetricEntry(BaseModel):
    """A metric of a suite; keys other than these are the metric's own parameters.

    Args:
        name: Name of the metric.
        features: Extractor of the features it is computed on; the suite's first by default.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: ComponentName
    features: ComponentSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """The metric's own fields."""
        return dict(self.model_extra or {})


class RunEntry(_Entry):
    """One line (or several) of the leaderboard.

    Args:
        model: `family/card`.
        label: Name in tables and plots; `{sampler}`, `{model}`, `{sampler.rho}`, and keys of the
            recipe such as `{distance}` or `{optimiser.lr}` are filled in.
        train: Overrides of the card's recipe; a list is an axis. Values of `seed` are trainings of
            one thing: one row.
        weights: A weights file instead of the card's.
        sampler: Sampler or list of samplers; the card's or family's own by default.
        nfe: Network evaluations per image, at least 1; refused where a sampler can't spend exactly
            that.
        steps: The sampler's `steps`, at least 1, in place of `nfe`.
        group: Heading under which tables put it: "distillation".
        tags: Words by which `cmbench run --tag` picks a part of the suite.
    """

    model: CardName
    label: str | None = Field(default=None, min_length=1, max_length=200)
    train: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    sampler: (
        Annotated[list[ComponentSpec], BeforeValidator(_listed), Field(min_length=1)] | None
    ) = None
    nfe: Annotated[list[int], BeforeValidator(_listed)] | None = None
    steps: Annotated[list[int], BeforeValidator(_listed)] | None = None
    group: str | None = Field(default=None, max_length=100)
    tags: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)

    @field_validator("nfe", "steps")
    @classmethod
    def _in_range(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (not value or min(value) < 1 or max(value) > MOST_STEPS):
            raise ValueError(f"expected whole numbers of at least 1, at most {MOST_STEPS}")
        return value

    @field_validator("train")
    @classmethod
    def _axes(cls, value: dict[str, Any]) -> dict[str, Any]:
        empty = next((key for key, choices in value.items() if choices == []), None)
        if empty is not None:
            raise ValueError(f"an empty list for {empty} leaves nothing to train")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        for one, other in (("nfe", "steps"), ("weights", "train")):
            if getattr(self, one) is not None and getattr(self, other):
                raise ValueError(f"give {one} or {other}, not both")
        return self


class Suite(_Entry):
    """A suite as written.

    Args:
        suite: Name of the suite, and of its folder under `results/`.
        version: Raised when a change makes old numbers incomparable.
        title: Title of plan and report; the name by default.
        description: Longer text for readers of the file; reports do not show it.
        dataset: Data set that generated images are compared with.
        images: How many images are generated per cell, and from which seeds.
        quantisation: How images in [-1, 1] become bytes; `round` is EDM's rule, `truncate` is
            OpenAI's.
        features: Feature extractors; metrics use the first where they name none.
        metrics: What is computed from the features.
        reference: Other reference images, or stored statistics of them.
        runs: Models to compare.
        findings: Claims that the numbers confirm, contradict or leave undecided.
        batch: Images per call of a network; by default what fits the device.
        decoys: Floors, ceilings and frauds scored beside the models: all of them or those listed.
    """

    suite: str = Field(pattern=SUITE_NAME, max_length=100)
    version: int = Field(default=1, ge=1, le=1_000_000)
    title: str = Field(default="", max_length=500)
    description: str = ""
    dataset: ComponentSpec
    images: Images
    quantisation: Quantisation = "round"
    features: Annotated[list[ComponentSpec], BeforeValidator(_listed)] = Field(
        default=["efficientnet_lite0"], min_length=1
    )
    metrics: list[MetricEntry] = Field(min_length=1)
    reference: ReferenceEntry = ReferenceEntry()
    runs: list[RunEntry] = Field(min_length=1)
    findings: list[Finding] = Field(default_factory=list)
    batch: int | None = Field(default=None, ge=1, le=1_000_000)
    decoys: (
        bool
        | list[
            Literal[
                "real",
                "train",
                "memoriser",
                "blurred",
                "jpeg",
                "mode_dropper",
                "gaussian",
                "noise",
            ]
        ]
    ) = False


def find_suite(name: str) -> Path:
    """The file of a suite given as a path or as a bare name (`digits_nfe`).

    Raises:
        UserError: If there is none, naming the nearest.
    """
    given = user_path(name)
    if given.suffix in (".yaml", ".yml"):
        if given.is_file():
            return given
        shipped = bundled_root() / given
        if shipped.is_file() and not given.is_absolute():
            return shipped
        near = nearest(given.stem, _suite_names())
        raise UserError(
            f"no such suite file: {name}",
            expected="a YAML file, or the name of a suite: " + ", ".join(sorted(_suite_names())),
            fix=f"cmbench run {near}" if near else "",
        )
    for root in roots() if is_name(name.replace(".", "_")) else ():
        path = root / "suites" / f"{name}.yaml"
        if path.is_file():
            return path
    raise unknown_name("suite", name, _suite_names())


def read_suite(name: str) -> tuple[Suite, Source]:
    """Reads and validates a suite.

    Raises:
        UserError: File, line, key, what is allowed and the nearest name.
    """
    source = read_yaml(find_suite(name))
    return validate(source, Suite), source


def _suite_names() -> list[str]:
    return sorted({f.stem for root in roots() for f in (root / "suites").glob("*.yaml")})
