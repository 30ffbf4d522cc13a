"""From kind and name to one file and its class: the name in YAML is the file's name.

No decorators and no registry: `ls` is the registry, only the file asked for is imported, and a
broken plugin breaks only itself. Looked for, in this order: the working directory, the folders on
`CMBENCH_PATH`, installed packages (entry point group `cmbench.components`), what cmbench ships.
A name is never a path, and nothing is loaded from results that are read (`without_folder`).
"""

import ast
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from cmbench.core.component import Component
from cmbench.core.digests import canonical, text_sha256
from cmbench.core.errors import Interrupted, UserError, brief, nearest, unknown_name
from cmbench.core.names import is_name, require_name
from cmbench.core.paths import user_path

__all__ = [
    "FOLDERS",
    "Listing",
    "available",
    "bundled_root",
    "create",
    "find",
    "load",
    "roots",
    "validation_message",
    "without_folder",
]

FOLDERS = {
    "model": "models",
    "sampler": "samplers",
    "metric": "metrics",
    "features": "features",
    "distance": "distances",
    "degradation": "degradations",
    "dataset": "datasets",
    "objective": "objectives",
    "network": "nets",
}
"""Kind of component to the folder its files lie in, under each root."""

_PACKAGE = Path(__file__).resolve().parent.parent
_SHUT: ContextVar[tuple[Path, ...]] = ContextVar("folders of which nothing is loaded", default=())


@dataclass(frozen=True)
class Listing:
    """One component found: its name, its file and the first line of its docstring."""

    kind: str
    name: str
    path: Path
    summary: str
    aliases: tuple[str, ...] = ()


def bundled_root() -> Path:
    """The folder that holds the models/ and suites/ that cmbench ships."""
    inside = _PACKAGE / "_bundled"
    return inside if inside.is_dir() else _PACKAGE.parent


def roots() -> list[Path]:
    """Folders searched for plugins, first match wins; what cmbench ships comes last."""
    found = [Path.cwd()]
    found += [user_path(p) for p in os.environ.get("CMBENCH_PATH", "").split(os.pathsep) if p]
    found += _installed_roots(tuple(sys.path))
    found = [p.resolve() for p in found]
    found = [p for p in found if not any(p.is_relative_to(shut) for shut in _SHUT.get())]
    return list(dict.fromkeys([*found, bundled_root().resolve()]))


@contextlib.contextmanager
def without_folder(*folders: Path) -> Iterator[None]:
    """Loads nothing from these folders inside: results of somebody else, which may hold code.

    They are no plugin folders even where they are the working directory or on `CMBENCH_PATH`.
    """
    token = _SHUT.set((*_SHUT.get(), *(folder.resolve() for folder in folders)))
    try:
        yield
    finally:
        _SHUT.reset(token)


def find(kind: str, name: str, *, where: str = "") -> Path:
    """The file that defines component `name` of `kind`.

    Raises:
        UserError: If the name is none (letters, digits, `_`, `-`), or nobody has it, naming the
            nearest and all that were found.
    """
    require_name(kind, name, where=where)
    for folder in _folders(kind):
        for path in (folder / f"{name}.py", folder / name / "adapter.py"):
            if path.is_file() and _is_component(name):
                return path
    listed = available(kind)
    meant = next((item.name for item in listed if name.lower() in item.aliases), "")
    raise unknown_name(kind, name, [item.name for item in listed], where=where, meant=meant)


def load(kind: str, name: str, *, where: str = "") -> type[Any]:
    """Imports the one file that defines the component and returns its class.

    Raises:
        UserError: If there is no such component, or its file does not import or has no class.
    """
    path = find(kind, name, where=where)
    module = _import(path, name, where)
    named = getattr(module, "__all__", [])
    listed = [n for n in named if isinstance(n, str)] if isinstance(named, (list, tuple)) else []
    exported = [getattr(module, item, None) for item in listed]
    classes = [c for c in exported if isinstance(c, type) and issubclass(c, Component)]
    matching = [c for c in classes if c.kind == kind]
    if len(matching) != 1:
        raise UserError(
            f"{path} must list exactly one {kind} class in __all__, found {len(matching)}",
            where=where,
            expected=f"a subclass of cmbench.api's {kind} base, named in __all__",
        )
    return matching[0]


def create(kind: str, spec: str | dict[str, Any], *, where: str = "") -> Any:
    """A component from YAML's `name` or `{name: ..., parameter: ...}`.

    Raises:
        UserError: For an unknown name, an unknown parameter or an impossible value.
    """
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{kind} without a name", where=where, expected="name, or {name: ...}")
    cls = load(kind, name, where=where)
    try:
        made = cls(**given)
    except ValidationError as error:
        raise UserError(
            f"{kind} '{name}': {validation_message(error, list(cls.model_fields))}",
            where=where,
            expected=f"parameters of {name}: {', '.join(cls.model_fields) or '(none)'}",
        ) from None
    except Exception as error:
        raise _plugin_fault(kind, name, error, where) from error
    _require_json(made, where)
    return made


def _require_json(made: Component, where: str) -> None:
    """A specification is part of keys and records, so it must be JSON."""
    try:
        canonical(made.spec())
    except Exception as error:
        raise _plugin_fault(made.kind, made.name, error, where) from error


def _plugin_fault(kind: str, name: str, error: Exception, where: str) -> UserError:
    return UserError(
        f"{kind} '{name}' can't be made: {type(error).__name__}: {error}",
        where=where,
        fix=f"mend {find(kind, name)}, or name another {kind}",
    )


def validation_message(error: ValidationError, allowed: list[str]) -> str:
    """The first fault pydantic found, in one line, with the nearest allowed key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = nearest(str(first["loc"][-1]), allowed)
        return f"unknown key {brief(key)}" + (f"; did you mean '{near}'?" if near else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {brief(first['input'])})" if key else message


def available(kind: str) -> list[Listing]:
    """Every component of `kind`, read from the files with `ast`: nothing is imported."""
    found: dict[str, Listing] = {}
    for folder in _folders(kind):
        if not folder.is_dir():
            continue
        for path in sorted([*folder.glob("*.py"), *folder.glob("*/adapter.py")]):
            name = path.parent.name if path.name == "adapter.py" else path.stem
            if _is_component(name) and name not in found:
                found[name] = Listing(kind, name, path, *_facts(path))
    return [found[name] for name in sorted(found)]


def _is_component(name: str) -> bool:
    """Whether a file of this name defines a component: `base.py` and `_*.py` serve the others."""
    return is_name(name) and name != "base" and not name.startswith("_")


def _folders(kind: str) -> Iterator[Path]:
    folder = FOLDERS[kind]
    for root in roots():
        if not (kind == "network" and root == bundled_root()):
            yield root / folder
    own = {"objective": _PACKAGE / "train" / "objectives"}
    yield own.get(kind, _PACKAGE / folder)


@lru_cache(maxsize=4)
def _installed_roots(path: tuple[str, ...]) -> list[Path]:
    """Folders of installed packages; reading every package's metadata takes longer than a plan."""
    found = []
    installed = (d.entry_points for d in distributions(path=list(path)))
    points = {p for every in installed for p in every.select(group="cmbench.components")}
    for point in sorted(points):
        spec = importlib.util.find_spec(point.value.partition(":")[0])
        found += [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    return found


def _import(path: Path, name: str, where: str) -> ModuleType:
    if _PACKAGE in path.parents and (_PACKAGE / "_bundled") not in path.parents:
        module_name = ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts)
    else:
        module_name = f"cmbench_plugin_{text_sha256(str(path))[:12]}.{name}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} can't be imported", where=where)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # a plugin may raise anything, sys.exit included
        del sys.modules[module_name]
        if isinstance(error, (KeyboardInterrupt, Interrupted)):
            raise
        raise UserError(
            f"{path} does not import: {type(error).__name__}: {error}",
            where=where,
            fix="mend that file, or name another component",
        ) from error
    return module


def _facts(path: Path) -> tuple[str, tuple[str, ...]]:
    """The first line of a file's docstring, and the `aliases` that its classes state."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"(does not parse: {type(error).__name__})", ()
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    stated = [
        line.value
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for line in cls.body
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "aliases"
    ]
    texts = [c.value for s in stated if s for c in ast.walk(s) if isinstance(c, ast.Constant)]
    return summary, tuple(str(text) for text in texts)
