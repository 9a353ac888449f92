"""Reads the documentation of installed packages; a program, so that the caller imports none.

`python -m trainables.data.collections.docstrings FILE PACKAGE...` writes one JSON object:
`entries`, a list of {name, aliases, doc}, and `skipped`, the modules that could not be imported.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PRIVATE = {"compat", "conftest", "core", "distutils", "externals", "f2py", "setup", "tests"}
"""Parts of a module's name that packages do not count as their public interface."""

_BROKEN = (
    ImportError,
    AttributeError,
    RuntimeError,
    OSError,
    TypeError,
    ValueError,
    LookupError,
    NameError,
    NotImplementedError,
    Warning,
)
"""What importing a module or reading one of its names may raise."""


class Walk:
    """Collects every public docstring once, with all the names under which it is found."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.skipped: list[str] = []

    def package(self, name: str) -> None:
        """Adds the public functions, classes and methods of a package and its modules."""
        for module in self._modules(name):
            for public, value in _members(module):
                self._object(f"{module.__name__}.{public}", value)

    def _modules(self, name: str) -> Iterator[types.ModuleType]:
        try:
            module = importlib.import_module(name)
        except _BROKEN as error:
            self.skipped.append(f"{name}: {type(error).__name__}: {error}")
            return
        yield module
        for found in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=_name):
            if not found.name.startswith("_") and found.name not in _PRIVATE:
                yield from self._modules(f"{name}.{found.name}")

    def _object(self, name: str, value: Any) -> None:
        self._doc(name, value)
        if inspect.isclass(value):
            self._members_of_class(name, value, depth=0)

    def _members_of_class(self, name: str, value: type, depth: int) -> None:
        for member in sorted(dir(value)):
            if member.startswith("_"):
                continue
            try:
                found = inspect.getattr_static(value, member)
            except _BROKEN:
                continue
            self._doc(f"{name}.{member}", getattr(found, "__func__", found))
            accessor = getattr(found, "_accessor", None)
            if inspect.isclass(accessor) and depth == 0:
                self._members_of_class(f"{name}.{member}", accessor, depth=1)

    def _doc(self, name: str, value: Any) -> None:
        try:
            doc = value.__doc__
        except _BROKEN:
            return
        if not isinstance(doc, str) or not doc.strip():
            return
        if not inspect.isclass(value) and doc == type(value).__doc__:
            return
        self.names.setdefault(inspect.cleandoc(doc), []).append(name)

    def entries(self) -> list[dict[str, object]]:
        """One entry per docstring, under its shortest name; sorted by name."""
        found: list[dict[str, object]] = []
        for doc, names in self.names.items():
            ordered = sorted(set(names), key=lambda name: (name.count("."), len(name), name))
            found.append({"name": ordered[0], "aliases": ordered[1:], "doc": doc})
        return sorted(found, key=lambda entry: str(entry["name"]))


def _members(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """The public names of a module: those it lists, or those it defines itself."""
    listed = getattr(module, "__all__", None)
    for name in sorted(set(listed if listed is not None else dir(module))):
        if name.startswith("_"):
            continue
        try:
            value = getattr(module, name)
        except _BROKEN:
            continue
        if isinstance(value, types.ModuleType):
            continue
        if listed is not None or getattr(value, "__module__", None) == module.__name__:
            yield name, value


def _name(found: pkgutil.ModuleInfo) -> str:
    return found.name


def main(arguments: list[str]) -> None:
    """Writes the documentation of the packages `arguments[1:]` to the file `arguments[0]`."""
    warnings.simplefilter("ignore")
    walk = Walk()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for package in arguments[1:]:
            walk.package(package)
    content = {"entries": walk.entries(), "skipped": sorted(walk.skipped)}
    Path(arguments[0]).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
