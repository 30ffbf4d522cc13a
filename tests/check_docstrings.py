"""Refuses docstrings that are fragments: `python tests/check_docstrings.py FOLDER ...`.

A docstring is a sentence, an imperative ("Writes the page.") or a noun phrase that names the
thing ("Sum of the rows."). It is a fragment if a reader has to guess the noun:

- it is a single word or number ("One.", "1.");
- or it begins with a preposition or a question word ("Of the rows.", "As stored.", "By image.",
  "What is kept.", "Whether it ends."), which qualify something that is not there.

A method decorated with `@override` is not read: its base class says what it does.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

EXEMPT: tuple[str, ...] = ()
"""Folders and files, seen from the repository's root, that still hold fragments."""

PREPOSITIONS = "of|as|by|for|from|to|into|in|on|at|between|below|beside|beyond"
QUESTIONS = "what|how|when|whether|where|which|who|whose|whom|why"
OPENING = re.compile(rf"\W*({PREPOSITIONS}|{QUESTIONS})\b", re.IGNORECASE)

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def fragment(docstring: str) -> str | None:
    """Returns why a docstring is a fragment; None if it is a sentence or a noun phrase."""
    if len(docstring.split()) < 2:
        return "is a single word"
    opening = OPENING.match(docstring)
    if opening is not None:
        return f"begins with '{opening[1]}': name the thing first"
    return None


def definitions(tree: ast.Module) -> Iterator[tuple[Definition, str]]:
    """Yields the module, its classes and functions with their docstrings; no overrides."""
    for node in ast.walk(tree):
        if isinstance(node, Definition) and not _overrides(node):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield node, docstring


def faults(path: Path) -> list[str]:
    """Lists the fragments in one file as `path:line: message`."""
    lines = []
    for node, docstring in definitions(ast.parse(path.read_text(encoding="utf-8"))):
        reason = fragment(docstring)
        if reason is not None:
            name = getattr(node, "name", "the module")
            shown = docstring.splitlines()[0]
            lines.append(f"{path}:{_line(node)}: docstring of {name} {reason}: {shown!r}")
    return lines


def python_files(folders: Iterable[str]) -> list[Path]:
    """Lists the Python files in and under `folders`, less what EXEMPT names."""
    listed = (p for folder in folders for p in _files(Path(folder)))
    return [p for p in listed if not any(p.is_relative_to(room) for room in EXEMPT)]


def main(folders: list[str]) -> int:
    """Prints all fragments; returns the exit status, 1 if there is one."""
    messages = [message for path in python_files(folders) for message in faults(path)]
    for message in messages:
        print(message)
    return int(bool(messages))


def _files(folder: Path) -> list[Path]:
    if not folder.exists():
        raise SystemExit(f"check_docstrings: no folder or file '{folder}'")
    return [folder] if folder.is_file() else sorted(folder.rglob("*.py"))


def _overrides(node: Definition) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(d).rpartition(".")[2] == "override" for d in decorators)


def _line(node: Definition) -> int:
    return 1 if isinstance(node, ast.Module) else node.lineno


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
