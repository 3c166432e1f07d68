"""The order of the packages: each imports only what stands before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cmbprep"

#: From the bottom up; docs/architecture.md says what each is for.
LAYERS = (
    "errors",
    "files",
    "models",
    "running",
    "lesions",
    "templates",
    "spatial",
    "phase",
    "brain",
    "registration",
    "zones",
    "detectors",
    "bids",
    "outputs",
    "config",
    "plan",
    "ratings",
    "followup",
    "reports",
    "interfaces",
    "workflows",
    "engine",
    "group",
    "review",
    "participant",
    "cli",
    "lab",
)
#: Packages of files, without code that imports anything.
WITHOUT_CODE = {"data"}
#: Old places of modules, which nothing here imports.
FORWARDED = {"images"}
#: Functions on arrays and affines.
PURE = ("spatial", "phase", "brain", "registration", "zones")

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Return the modules of the package that a module imports, type checking left out."""
    tree = ast.parse(path.read_text("utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                as_path = PACKAGE.parent / inner.replace(".", "/")
                is_module = as_path.is_dir() or as_path.with_suffix(".py").is_file()
                yield inner if is_module else str(node.module)


def layer(module: str) -> str | None:
    """Return the part of the package that a module belongs to; None for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cmbprep" and len(parts) > 1 else None


def test_every_part_of_the_package_has_a_place() -> None:
    found = {
        path.stem
        for path in PACKAGE.iterdir()
        if not path.name.startswith(("_", ".")) and (path.suffix == ".py" or path.is_dir())
    }
    assert found - {"py"} == {*LAYERS, *WITHOUT_CODE, *FORWARDED}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    own = layer(module_name(path))
    if own is None or own == "__main__" or own in FORWARDED:
        return
    below = {*LAYERS[: LAYERS.index(own) + 1], None} if own not in WITHOUT_CODE else {None}
    wrong = [module for module in imports(path) if layer(module) not in below]
    assert wrong == []


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {module_name(path): set(imports(path)) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module in done or module not in graph:
            return
        for other in sorted(graph[module]):
            visit(other, (*way, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("part", PURE)
def test_pure_parts_know_no_nipype(part: str) -> None:
    for path in (PACKAGE / part).rglob("*.py"):
        assert not [module for module in imports(path) if module.split(".")[0] == "nipype"]
