"""What is done in one place only: importing onnxruntime and openvino, which report unless told not to, and starting a
process."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("edgevlm", "runtime/edgevlm_runtime", "export/edgevlm_export", "benchmarks", "docs")

LIBRARY = "runtime/edgevlm_runtime/engines/ort_library.py"
CHILD = "runtime/edgevlm_runtime/child.py"
OPENVINO = "runtime/edgevlm_runtime/engines/intel/library.py"
REPORTING = ("onnxruntime", "onnxruntime_genai", "openvino", "openvino_genai")
IMPORTS_ALLOWED = {
    LIBRARY,
    OPENVINO,
    # Code of processes that `child` starts, which gives them the switches.
    "edgevlm/providers.py",
    "benchmarks/isa/checks.py",
    "benchmarks/peers/onnxruntime_genai.py",
    "benchmarks/peers/openvino.py",
    "benchmarks/peers/openvino_genai.py",
    "benchmarks/peers/transformers_exporters.py",
}
STARTS_ALLOWED = {
    CHILD,
    "edgevlm/demo/camera.py",  # the system's own Python, which has GStreamer, in the environment that `child` makes
    "benchmarks/context_cache.py",  # this benchmark's own rounds, from the repository
    "benchmarks/watching.py",  # `edgevlm watch` as users start it, and the RTSP server
    "benchmarks/before_after.py",  # git, and another checkout's own command
    "benchmarks/isa/commands.py",  # gcc, objdump, cp, unshare, in the environment that `child` makes
    "benchmarks/peers/tools.py",  # other people's programs, in the environment that `child` makes
}
STARTING = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "startfile"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"spawn", "fork"},
}
IMPORTING = ("import_module", "__import__", "importorskip")
CODE = re.compile(r"\bimport \w+.*[\n;]")
POOLS = {"multiprocessing", "concurrent.futures.process", "pexpect"}


def files(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that code imports: by a statement, by `import_module("...")`, or in code that it holds as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(IMPORTING):
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.search(node.value):
            with contextlib.suppress(SyntaxError):  # a template, or words about code
                yield from imported(ast.parse(node.value))


def starts(tree: ast.Module) -> Iterator[str]:
    """What code uses that starts a process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            if name in STARTING.get(module, ()) or (module == "os" and name.startswith(("exec", "spawn"))):
                yield f"{module}.{name}"
            if name == "ProcessPoolExecutor":
                yield name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [alias.name for alias in node.names]
            yield from (f"{module}.{name}" for name in names if name in STARTING.get(module, ()))
            yield from (name for name in names if name == "ProcessPoolExecutor")
            if module.split(".")[0] in POOLS or module in POOLS:
                yield module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in POOLS)


def test_libraries_that_report_are_imported_in_one_place():
    found = {
        name
        for name, tree in files(*PRODUCT, "fuzz", "tools", "tests")
        if any(module.split(".")[0] in REPORTING for module in imported(tree))
    }
    assert found - {"tests/test_doors.py"} == IMPORTS_ALLOWED, "import it by its library.py or ort_library.py"


def test_processes_are_started_in_one_place():
    found = {name: sorted(used) for name, tree in files(*PRODUCT) if (used := set(starts(tree)))}
    allowed = {name: found.pop(name, None) for name in STARTS_ALLOWED}
    assert found == {}, "start Python with edgevlm_runtime.child"
    assert all(allowed.values())


@pytest.mark.parametrize(
    "code",
    [
        "import onnxruntime",
        "import onnxruntime.tools as tools",
        "from onnxruntime.capi import x",
        "import_module('onnxruntime')",
        "import openvino as ov",
        "CODE = 'import json, onnxruntime; print(1)'",
        "def f():\n    import onnxruntime_genai as og",
    ],
)
def test_the_search_for_imports_finds(code):
    assert any(module.split(".")[0] in REPORTING for module in imported(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run(['x'])",
        "from subprocess import Popen",
        "os.execve(a, b, c)",
        "os.spawnl(1)",
        "import multiprocessing as mp",
        "from multiprocessing.pool import Pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "concurrent = futures.ProcessPoolExecutor()",
        "asyncio.create_subprocess_exec('x')",
    ],
)
def test_the_search_for_processes_finds(code):
    assert list(starts(ast.parse(code)))
