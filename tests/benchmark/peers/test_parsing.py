"""What peers print, read from real output kept in `samples/`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peers import tools
from benchmarks.peers.base import PeerError
from benchmarks.peers.llama_cpp import read_bench, read_question
from benchmarks.peers.tools import output_of, read_measures

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "test"), [("llama-bench-prefill.json", "n_prompt"), ("llama-bench-decode.json", "n_gen")]
)
def test_llama_bench(file, test):
    """Its own tokens a second, which it rounds, is the reference."""
    (row,) = json.loads(sample(file))
    assert read_bench(sample(file), test) == pytest.approx(row["avg_ts"], rel=1e-3)


def test_llama_bench_without_the_row():
    with pytest.raises(PeerError, match="no row with n_gen"):
        read_bench(sample("llama-bench-prefill.json"), "n_gen")
    with pytest.raises(PeerError, match="nothing"):
        read_bench("", "n_prompt")


def test_llama_mtmd_cli():
    """The prompt's clock ran while the vision encoder worked: 29.9 s of its 45.2 s."""
    vision, first, load = read_question(sample("llama-mtmd-cli.log"))
    assert (vision, first, load) == (29940.0, 45184.08, 6556.52)


def test_llama_mtmd_cli_with_a_clock_of_the_prompt_alone():
    log = sample("llama-mtmd-cli.log").replace("45184.08 ms /   617", "15184.08 ms /   617")
    assert read_question(log)[1] == 29940.0 + 15184.08


def test_llama_mtmd_cli_with_two_images_of_one():
    """SmolVLM's tile and overview: the time of one of them, and no time to first token that could be compared."""
    assert read_question(sample("llama-mtmd-cli-tiles.log")) == ((8221.0 + 10279.0) / 2, None, 3451.49)


def test_llama_mtmd_cli_without_timings():
    with pytest.raises(PeerError, match="no timings: error: no such model"):
        read_question("error: no such model\n")


@pytest.mark.parametrize("peer", ["openvino", "openvino-genai", "onnxruntime-genai", "transformers-exporters"])
def test_child_sides(peer):
    """Libraries print before the measures; the last line is theirs."""
    found = read_measures(sample(f"{peer}.out"), memory=7.0)
    assert found.peak_rss_mib == 7.0
    assert found.load_ms is not None
    assert found.prefill_tokens_per_s is not None
    sees = peer != "onnxruntime-genai"
    assert (found.vision_ms is not None, found.time_to_first_token_ms is not None) == (sees, sees)
    assert (found.repeat_question_ttft_ms is not None) == peer.endswith("genai")


@pytest.mark.parametrize("printed", ["", "no numbers\n", '{"speed": 1}\n', "[1]\n"])
def test_other_output(printed):
    with pytest.raises(PeerError, match="printed no measures"):
        read_measures(printed, memory=1.0)


def test_memory_is_that_of_the_process():
    stdout, stderr, memory = output_of(
        [sys.executable, "-c", "import sys; x = bytearray(2**28); print(len(x)); print(3, file=sys.stderr)"]
    )
    assert (stdout.strip(), stderr.strip()) == (str(2**28), "3")
    assert 256 < memory < 512


def test_a_failing_process_is_one_line():
    with pytest.raises(PeerError, match=r"ended with 1: ValueError: too long$"):
        output_of([sys.executable, "-c", "raise ValueError('too long')"])
    with pytest.raises(PeerError, match="nonexistent"):
        output_of(["/nonexistent/program"])


def ends(pid: int) -> bool:
    """Whether the process is over within half a minute: killed, it closes its pipes first and is gone a little later.

    A process that nobody has collected yet is over as well.
    """
    for _ in range(300):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_a_hanging_process_ends_with_its_engine(monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "TURN_SECONDS", 5)
    number = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(600)"
    with pytest.raises(PeerError, match="took more than 5 s"):
        output_of([sys.executable, "-c", code])
    assert ends(int(number.read_text()))
