"""The server's own description holds: schemathesis sends what it allows, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from edgevlm.serve.description import description
from tests.support.chatting import server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz(tiny: Path, tmp_path: Path, examples: int, seconds: int) -> None:
    """Every address, with every phase. A request that hangs is a failure."""
    with server(tiny, waiting=64) as (address, _):
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{address}openapi.json"]
        command += ["--checks", CHECKS, "--max-examples", str(examples), "--request-timeout", "30", "--seed", "1"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-redirects", "0", "--no-color", "--workers", "1"]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert httpx2.get(f"{address}health", trust_env=False).status_code == 200


def test_a_short_search(tiny: Path, tmp_path: Path) -> None:
    fuzz(tiny, tmp_path, 15, 240)


@pytest.mark.slow
def test_a_long_search(tiny: Path, tmp_path: Path) -> None:
    fuzz(tiny, tmp_path, 2000, 3600)


def test_every_field_is_described(address: str) -> None:
    told = httpx2.get(f"{address}openapi.json", trust_env=False).json()
    assert told == description(told["info"]["version"], ["tiny"], token=False)
    fields = told["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "choices_of", "response_format", "stream"} <= set(fields)
    assert "securitySchemes" not in told["components"]
    locked = description("0", ["tiny"], token=True)
    assert locked["security"]
    assert locked["paths"]["/health"]["get"]["security"] == []
