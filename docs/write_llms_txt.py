"""Writes docs/llms.txt, the site's map for language models (https://llmstxt.org), from the pages.

python docs/write_llms_txt.py
"""

import re
from pathlib import Path

__all__ = ["llms_txt"]

_DOCS = Path(__file__).parent
_TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.S)
SUMMARIES = {
    "tutorial": "from an empty machine to a leaderboard of one's own, step by step",
    "notebook": "load_model, sample, evaluate, strip and results in Python",
    "data": "which data sets there are, where their files lie, how they are fingerprinted",
    "assets": "official weights and statistics: fetch, verify, mirror, add by hand",
    "training": "recipes, resuming, several students of one teacher, several devices",
    "checkpoints": "an adapter that loads a network trained elsewhere: build, load, opened, makes, classes",
    "plugins": "one example file for every kind of component, and packages of them",
    "interop": "samples and statistics to and from ADM's, EDM's and other evaluators",
    "gpu": "what to set up and what differs from a CPU",
    "report": "what report.html shows and how it is shared",
    "concepts": "counted evaluations, seeded noise, intervals, fingerprints",
    "architecture": "which package does what, the import order, the contracts",
    "metrics": "what each metric computes, its interval, and what it agrees with",
    "trust": "compare, explain, verify, decoys: whether a number can be believed",
    "reliability": "what kills, full disks and broken files come to",
    "speed": "measured seconds of sampling, metrics and training",
    "scaling": "clusters by Ray or Slurm, shared stores, sizes of the published suites",
    "families-cold": "cold diffusion: degradations, samplers, official files",
    "families-ddpm": "DDPM and improved DDPM: schedules, samplers, official files",
    "families-few-step": "progressive distillation, iCT, ECT, flow matching, shortcut models, MeanFlow",
    "families-score": "NCSN, NCSNv2 and score SDE: ladders, samplers, official files",
    "families-sohl-dickstein": "the diffusion models of 2015, Gaussian and binomial",
    "cli": "every command with its options, defaults, examples and exit codes",
    "suite": "every key of a suite's YAML with its type, default and placeholders",
    "api": "the Python functions for notebooks and the contracts for plugins",
}
"""What each page answers, for a reader who must choose one."""


def llms_txt() -> str:
    """Returns the map: every page in the order of docs/index.md, with its title and summary."""
    index = (_DOCS / "index.md").read_text("utf-8")
    about = " ".join(index.split("\n\n")[1].split())
    sections = [_section(tree) for tree in _TOCTREE.findall(index)]
    return "\n\n".join(["# cmbench", f"> {about}", *sections]) + "\n"


def _section(tree: str) -> str:
    caption = re.search(r":caption: (.+)", tree)
    assert caption is not None, "each toctree of docs/index.md has a caption"
    names = [line for line in tree.splitlines() if line and not line.startswith(":")]
    pages = [page for name in names for page in sorted(_DOCS.glob(f"{name}.md"))]
    return f"## {caption[1]}\n\n" + "\n".join(map(_line, pages))


def _line(page: Path) -> str:
    title = re.search(r"^# (.+)$", page.read_text("utf-8"), re.M)
    assert title is not None, f"{page.name} has no heading"
    return f"- [{title[1]}]({page.name}): {SUMMARIES[page.stem]}"


if __name__ == "__main__":
    (_DOCS / "llms.txt").write_text(llms_txt(), "utf-8")
