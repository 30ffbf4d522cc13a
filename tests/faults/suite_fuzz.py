"""Mutated suites, recipes and cards: each is accepted, or refused with its place, in bounded time.

    python tests/faults/suite_fuzz.py 5000        counts outcomes over seeds 0..4999

A case is decided by its seed alone. Half of them change the text (characters, lines, bytes), half
the parsed values (keys renamed, dropped or added; values of another type, size or form).
"""

import collections
import contextlib
import copy
import random
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from cmbench.cards.cards import find_card
from cmbench.core.errors import UserError
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite
from cmbench.train.recipe import read_recipe

CPU_SECONDS = 10.0
"""A case that works longer than this hangs; most take milliseconds."""

MEMORY = 4 * 2**30
"""Bytes that one process may map beyond what it had at the start."""

SUITES = (
    """\
suite: tiny
version: 1
title: A small suite
dataset: {name: digits, split: train}
images: {count: 24, seeds: [0, 1], shard: 8}
quantisation: round
features: pixels
metrics:
  - frechet_distance
  - {name: kid, subsets: 0}
  - {name: precision_recall, k: 3}
reference: {count: 200}
decoys: [train, noise]
runs:
  - model: oracle/gaussian
    label: Gaussian {sampler}
    sampler: [heun, {name: euler, rho: 7.0}]
    nfe: [1, 3]
    tags: [fast]
  - model: oracle/consistency
    sampler: {name: multistep, indices: [0, 7, 17], grid: 18}
findings:
  - claim: More evaluations are better
    better: {label: Gaussian heun, nfe: 3}
    worse: {label: Gaussian heun, nfe: 1}
""",
    """\
suite: trained
dataset: digits
images: {count: 32}
features: [digits_classifier]
metrics: [frechet_distance, {name: inception_score, splits: 2}]
runs:
  - model: edm/digits
    label: EDM {seed}
    train: {images: 256, optimiser.lr: 1.0e-3, seed: [0, 1]}
    steps: [2, 4]
  - model: consistency/digits
    label: CD ({distance})
    train: {objective: cd, distance: [l2, digits_lpips], objective.points: 10}
    nfe: [1, 2]
""",
)
RECIPES = (
    """\
recipe: edm/digits
model:
  name: edm
  shape: [1, 8, 8]
  network: {name: compact_unet, channels: [16, 32], unshuffle: 2, embedding: 32}
dataset: {name: digits, split: train}
objective: {name: edm, p_mean: -1.2, p_std: 1.2}
optimiser: {name: muon, lr: 5.0e-3, betas: [0.9, 0.99], warmup_images: 128, decay_images: 128}
batch: 32
images: 1024
ema: {half_life_images: 60, ramp: 0.05}
flip: false
clip: 1.0
seed: 0
""",
)
CARDS = (
    """\
small:
  summary: A small one.
  config:
    shape: [1, 8, 8]
    spread: 0.5
  sampler: {name: heun, steps: 4}
  licence: Apache-2.0
  published:
    - {metric: FID, value: 2.1, nfe: 35, source: a paper}
""",
)
VALUES = (
    None, True, False, 0, -1, 1, 2, 3, 10**6, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**30,
    0.0, -0.0, 0.5, 1.5, 1e-300, 1e30, 1e300, float("inf"), float("-inf"), float("nan"),
    "", " ", "x", "x" * 300, "x" * 5000, "nonsense", "../../x", "/proc/self/cwd/x", "~nosuchuser/x",
    "~/x", "a/b", "edm/digits", "a/b/c", "digits", "pixels", "heun", "euler", "kid", "multistep",
    "{sampler.x}", "{model[a]}", "{model:>9999999999}", "{", "}", "{}", "{0}", "{{x}}", "{sampler}",
    "\u00e9\u4e2d", "on", "1", "1e5", "a\nb", "a=b", "%s", "<script>", "x.npz", "weights.pt",
    [], {}, [[]], [{}], [None], [0], [-1], [1, 1], ["x"], [0, 0, 0], [3, 2, 1], [1.5],
    {"name": None}, {"name": "x"}, {"name": ["x"]}, {"name": "heun", "steps": 10**9},
    {"name": "images", "path": "/no/such"}, {"name": "digits", "split": "none"}, {"x": {"y": []}},
    {"name": "fd_infinity"}, {"name": "kid", "subset_size": 10**9}, list(range(300)),
    {"name": "kid", "features": "nonsense"}, {"name": "images"}, {"name": "cifar10"},
)  # fmt: skip
"""Values that are put in another's place."""

TEXTS = (
    "2024-13-45", "2024-01-01", "!!int foo", "!!bool maybe", "!!timestamp x", "!!float y", "0x_",
    "0b_", "1" * 5000, "0x" + "f" * 20000, "!!python/object:os.system x", "!!set {a}", "*a", "&a *a",
    "&a [*a]", "[" * 400, "{a: " * 400, "? [x]", "{? {a: b} : c}", "[1, 2]: 3", "<<: *b", "<<: {a: 1}",
    ".inf", "-.INF", ".nan", "1:30:00", "!x y", "!!binary aGk=", '"\\ud800"', '"\\0"', "'", '"', "|",
    ">-", "%TAG", "---", "...", "\t", ": :", "- -", "@x", "`x`", "~", "\u2028", "1_000", "0o17",
)  # fmt: skip
"""Texts that are put in a value's place."""

BYTES = (b"\xff", b"\x00", b"\xc3\x28", b"\x1b[31m", b"\xef\xbb\xbf", b"\r", b"\x7f", b"\xe2\x80")
BOMB = "".join(
    f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else 'x'] * 10)}]\n" for i in range(10)
)
"""Ten lines of aliases that stand for 10^10 values."""


class HangError(BaseException):
    """A case that took more than its share of the CPU."""


def mutated(seed: int) -> tuple[str, bytes]:
    """Kind ("suite", "recipe" or "card") and bytes of case `seed`."""
    rng = random.Random(seed)
    kind = rng.choices(("suite", "recipe", "card"), (6, 3, 1))[0]
    text = rng.choice({"suite": SUITES, "recipe": RECIPES, "card": CARDS}[kind])
    if rng.random() < 0.5:
        data = yaml.safe_load(text)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = _changed(data, rng)
        return kind, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = _retyped(text, rng)
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.08:
        place = rng.randrange(len(raw))
        raw = raw[:place] + rng.choice(BYTES) + raw[place:]
    return kind, raw


def outcome(kind: str, raw: bytes, folder: Path) -> str:
    """What becomes of a case.

    Returns:
        "accepted", "refused", "no place", "hang", or the name of the exception that came out.
    """
    try:
        with _limited():
            _read(kind, raw, folder)
    except UserError as error:
        placed = re.match(r"\S*\.yaml:\d+", error.where) is not None
        return "refused" if placed else "no place"
    except HangError:
        return "hang"
    except Exception as error:
        return type(error).__name__
    return "accepted"


def _read(kind: str, raw: bytes, folder: Path) -> None:
    if kind == "card":
        place = folder / "models" / "fuzzed"
        place.mkdir(parents=True, exist_ok=True)
        (place / "adapter.py").touch()
        (place / "cards.yaml").write_bytes(raw)
        (folder / "card.yaml").write_text(
            "suite: s\ndataset: digits\nimages: {count: 8}\nfeatures: pixels\nmetrics: [kid]\n"
            "runs:\n  - model: fuzzed/small\n"
        )
        find_card("fuzzed/small", where=f"{folder / 'card.yaml'}:7: runs[0].model")
        return
    path = folder / f"{kind}.yaml"
    path.write_bytes(raw)
    if kind == "recipe":
        read_recipe(path)
    else:
        make_plan(*read_suite(str(path)))


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Bounds of CPU time and memory, both put back afterwards."""

    def stop(number: int, frame: object) -> None:
        raise HangError

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    earlier = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, earlier)


def _changed(data: object, rng: random.Random) -> object:
    """The parsed value with one place changed."""
    data = copy.deepcopy(data)
    places = list(_places(data))
    holder, key = rng.choice(places)
    act = rng.random()
    if act < 0.65:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    elif act < 0.75:
        del holder[key]
    elif isinstance(holder, dict) and act < 0.85:
        holder[_misspelt(str(key), rng)] = holder.pop(key)
    elif isinstance(holder, dict):
        holder[rng.choice(("name", "x", "label", "images.x", "a b", "k", "seed", "name.x"))] = (
            copy.deepcopy(rng.choice(VALUES))
        )
    else:
        holder.append(copy.deepcopy(rng.choice(VALUES)))
    return data


def _places(value: object) -> Iterator[tuple[object, object]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _misspelt(key: str, rng: random.Random) -> str:
    place = rng.randrange(len(key))
    return key[:place] + rng.choice("abxyz_.") + key[place + rng.choice((0, 1)) :]


def _retyped(text: str, rng: random.Random) -> str:
    """The text with one place changed."""
    lines = text.splitlines(keepends=True)
    line = rng.randrange(len(lines))
    act = rng.random()
    if act < 0.35:
        values = list(re.finditer(r"(?<=: )[^\n]+|(?<=[\[{, ])[\w.]+", text))
        found = rng.choice(values)
        return text[: found.start()] + rng.choice(TEXTS) + text[found.end() :]
    if act < 0.45:
        lines.insert(line, rng.choice(TEXTS) + "\n")
    elif act < 0.55:
        lines.insert(line, lines[rng.randrange(len(lines))])
    elif act < 0.65:
        del lines[line]
    elif act < 0.7:
        lines[line] = " " * rng.randrange(8) + lines[line].lstrip()
    elif act < 0.74:
        lines = [BOMB, *lines, "title: *b9\n"]
    else:
        place = rng.randrange(len(text))
        typed = rng.choice("{}[],:#&*!|>'\"%@`-?. \n0aZ~\x07\u00e9")
        return text[:place] + typed + text[place + rng.choice((0, 1, 1)) :]
    return "".join(lines)


def main() -> None:
    """Counts the outcomes of as many cases as the first argument says, from the second on."""
    count = int(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    told: collections.Counter[str] = collections.Counter()
    examples: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for seed in range(first, first + count):
            kind, raw = mutated(seed)
            found = outcome(kind, raw, Path(name))
            told[found] += 1
            examples.setdefault(found, []).append(seed)
    for found, number in told.most_common():
        sys.stdout.write(f"{number:6} {found:24} {examples[found][:12]}\n")


if __name__ == "__main__":
    main()
