"""A suite of seconds, run through the command line."""

import os
import subprocess
import sys
from pathlib import Path

SUITE = """\
suite: tiny
title: A tiny suite
dataset: digits
images: {count: 40, shard: 8}
features: digits_classifier
metrics: [frechet_distance, {name: inception_score, splits: 2}, precision_recall, kid]
runs:
  - model: edm/digits
    label: EDM
    train: {images: 768, batch: 64, save_every_images: 128, log_every: 2}
    nfe: [1, 3]
  - model: oracle/consistency
    label: oracle
    sampler: multistep
    nfe: [1, 2]
"""


def cmbench(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), cwd=folder, env=environment(folder, **env), text=True,
                          capture_output=True, check=False)  # fmt: skip


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", "from cmbench.cli.main import main; main()", *args]


def environment(folder: Path, **env: str) -> dict[str, str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith("CMBENCH_")}
    return base | {"CMBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | env


def outputs(folder: Path) -> dict[str, bytes]:
    """What must be equal between two runs of the same work: records, samples, training logs."""
    root = folder / "results" / "tiny"
    files = [f for sub in ("records", "samples", "training") for f in (root / sub).glob("*")]
    kept = {str(f.relative_to(root)): f.read_bytes() for f in files}
    for kind, name in (("sample", "pixels.npy"), ("train", "weights.safetensors"),
                       ("features", "pool.npy"), ("score", "scores.json")):  # fmt: skip
        for f in (folder / "cache" / "objects" / kind).rglob(name):
            kept[f"{kind}/{f.parent.name}/{name}"] = f.read_bytes()
    return kept


def fresh(folder: Path) -> Path:
    folder.mkdir()
    (folder / "tiny.yaml").write_text(SUITE)
    return folder
