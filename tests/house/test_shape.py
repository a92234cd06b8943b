"""Functions fit a screen, headers stand alone, every module imports."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import PACKAGE, TOP, files, name

LONGEST_FUNCTION = 80  # lines


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{name(path)}:{node.lineno} {node.name}", lines


def c_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions in the project's style: the opening and the closing brace stand alone in the first column."""
    began = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line == "{":
            began = number
        elif line == "}" and began:
            yield f"{name(path)}:{began}", number - began + 1
            began = 0


def test_no_function_is_longer_than_the_limit() -> None:
    functions = [found for path in files(".py") for found in python_functions(path)]
    functions += [found for path in files(".c", ".h") for found in c_functions(path)]
    assert functions
    too_long = [f"{where}: {lines} lines" for where, lines in functions if lines > LONGEST_FUNCTION]
    assert not too_long, "\n".join(too_long)


MODULES = sorted(
    ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
    for path in files(".py", under=PACKAGE)
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    importlib.import_module(module)


HEADERS = [path for path in files(".h", under=PACKAGE) if path.parent != PACKAGE]  # door.h is cffi's, not C's


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("header", HEADERS, ids=name)
def test_a_header_needs_no_other_before_it(header: Path) -> None:
    relative = header.relative_to(PACKAGE)
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-fsyntax-only", "-xc", "-"]
    done = subprocess.run(
        ["gcc", f"-I{PACKAGE}", *flags],
        input=f'#include "{relative}"\n#include "{relative}"\n',
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_c_file_opens_with_what_it_is_for() -> None:
    sources = [path for path in files(".c", ".h", under=PACKAGE) if path.stat().st_size]
    silent = [name(path) for path in sources if not re.match(r"/[*/]", path.read_text())]
    assert not silent, silent


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [
        name(path)
        for path in files(".py")
        if path.stat().st_size and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent, silent


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in files(".py", under=TOP / "tests") if path.name.startswith("test_")]
    twice = {file for file in names if names.count(file) > 1}
    assert not twice, twice
