"""Peers by name, what is missing and why, and their place among the rounds."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForImageTextToText, Qwen2ForCausalLM

from benchmarks import __main__ as published
from benchmarks import targets
from benchmarks.peers import PEERS, UnknownPeer, checkpoints, chosen, get_peer, prepare, state
from benchmarks.peers.base import FIRST_TOKEN, Measures, PeerError, Room, Task, Variant
from benchmarks.peers.guests import MEASURES, Party, PeerGuest, medians
from benchmarks.peers.tools import REPOSITORY
from benchmarks.peers_tables import missing, peer_lines, remarks
from benchmarks.tables import COLUMNS
from edgevlm.benchmark.process import EngineProcess
from edgevlm.benchmark.run import BenchOptions, bench
from edgevlm.benchmark.workload import Workload

SHAPE = "clip-l-336-qwen2-0.5b"
TASK = Task("x.png", "a", "b", (1, 9, 9, 2, 3), (1, 9, 9, 4), 9, (0.5,) * 3, (0.5,) * 3, 4, 2)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_holds_what_the_registry_needs(name):
    peer = get_peer(name)
    assert name == peer.NAME
    names = [variant.name for variant in peer.VARIANTS]
    assert len(set(names)) == len(names) > 0
    assert all(callable(getattr(peer, part)) for part in ("install", "convert", "model_files", "measure"))
    blanks = {measure for variant in peer.VARIANTS for measure in variant.blanks}
    assert blanks <= set(MEASURES)


def test_names():
    assert chosen("all") == tuple(PEERS)
    assert chosen("openvino, llama.cpp,openvino") == ("openvino", "llama.cpp")
    assert chosen(None) == ()
    with pytest.raises(UnknownPeer, match=r"no peer 'mlx': there are llama\.cpp, openvino"):
        chosen("llama.cpp,mlx")


@pytest.mark.parametrize("arguments", [["--peers", "mlx"], ["--peers", "all,mlx"]])
def test_an_unknown_peer_is_bad_usage(arguments):
    done = CliRunner().invoke(published.main, arguments)
    assert done.exit_code == 2
    assert "there are llama.cpp, openvino" in done.output


def test_what_was_never_prepared_is_missing(tmp_path):
    room = Room(tmp_path, SHAPE)
    party = Party(room, ("llama.cpp", "openvino"))
    found = party.results()
    assert found["peers"] == []
    rows = [f"llama.cpp {one.name}" for one in get_peer("llama.cpp").VARIANTS]
    rows += [f"openvino {one.name}" for one in get_peer("openvino").VARIANTS]
    assert list(found["missing"]) == rows
    assert f"python -m benchmarks.peers.prepare llama.cpp --shape {SHAPE}" in found["missing"]["llama.cpp Q8_0"]
    assert "- llama.cpp Q8_0: not prepared" in missing(found)


def test_what_cannot_be_installed_is_missing(tmp_path, monkeypatch):
    """Installing fails in one line, which the state keeps; nothing of it is measured."""

    def install(room):
        raise PeerError("pip ended with 1: no such package")

    monkeypatch.setattr(get_peer("onnxruntime-genai"), "install", install)
    room = Room(tmp_path, SHAPE)
    found = prepare.prepare(room, "onnxruntime-genai")
    assert found.ready == ()
    assert set(found.missing.values()) == {"not installed: pip ended with 1: no such package"}
    assert state.ready_rows(room, ("onnxruntime-genai",)) == []
    assert list(state.missing_rows(room, ("onnxruntime-genai",))) == [
        "onnxruntime-genai int8",
        "onnxruntime-genai int4",
    ]


def test_one_row_that_cannot_be_converted_leaves_the_others(tmp_path, monkeypatch):
    peer = get_peer("onnxruntime-genai")

    def convert(room, variant):
        if variant.name == "int4":
            raise PeerError("python ended with 1: unsupported")

    monkeypatch.setattr(peer, "install", lambda room: {"onnxruntime-genai": "1"})
    monkeypatch.setattr(peer, "convert", convert)
    found = prepare.prepare(Room(tmp_path, SHAPE), "onnxruntime-genai")
    assert (found.ready, found.missing) == (("int8",), {"int4": "not converted: python ended with 1: unsupported"})


def test_a_failing_turn_is_the_last_one(tmp_path, monkeypatch):
    turns = []

    def measure(room, variant, task):
        turns.append(variant.name)
        raise PeerError("killed")

    monkeypatch.setattr(get_peer("openvino"), "measure", measure)
    party = Party(Room(tmp_path, SHAPE), ())
    guest = PeerGuest("openvino", Variant("int8", "int8"), party.room, TASK, {})
    party.members = [guest]
    guest.turn()
    guest.turn()
    assert turns == ["int8"]
    assert party.results() == {"peers": [], "missing": {"openvino int8": "failed: killed"}}


def test_guests_take_turns_in_the_rounds_that_are_kept(tiny_bundle, monkeypatch):
    """Beside them, our engines warm up in every turn as they do."""
    asks, ask = [], EngineProcess.ask

    def counted(self):
        asks.append(self.spec.label)
        return ask(self)

    monkeypatch.setattr(EngineProcess, "ask", counted)

    class Guest:
        turns = 0

        def turn(self):
            self.turns += 1

    guest, asked = Guest(), []

    def guests(task, bundle):
        asked.append((task.new_tokens, bundle.path))
        return [guest]

    options = BenchOptions(bundles=(tiny_bundle,), workload=Workload(repeats=2, warmup=3, new_tokens=2, text_tokens=30))
    found = bench(options, guests=guests)
    assert guest.turns == 2
    assert len(asks) == 3 + 2 * 2
    assert asked == [(2, tiny_bundle)]
    assert len(found.engines[0].rows) == 2


def test_medians_need_every_round():
    rows = [Measures(vision_ms=3.0, load_ms=1.0), Measures(vision_ms=1.0), Measures(vision_ms=2.0, load_ms=5.0)]
    found = medians(rows)
    assert found["vision_ms"] == 2.0
    assert found["load_ms"] is None
    assert set(found) == set(MEASURES)


def test_questions_share_the_image():
    assert TASK.shared == 3


def test_the_language_model_alone_computes_the_same(tiny_checkpoint, tmp_path):
    checkpoints.write_decoder(tiny_checkpoint, tmp_path / "decoder")
    alone = Qwen2ForCausalLM.from_pretrained(tmp_path / "decoder", dtype=torch.float32).eval()
    whole = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(alone(ids).logits, whole(input_ids=ids).logits)


def engine(label: str, vision: float, prefill: float, decode: float, first: float) -> dict:
    name = "pytorch" if label.startswith("PyTorch") else "edgevlm"
    spreads = {"vision_ms": {"p50": vision}, "projector_ms": {"p50": 0.0}, "time_to_first_token_ms": {"p50": first}}
    return {"label": label, "name": name, "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode, **spreads}


def peer(label: str, **medians: float) -> dict:
    full = {**dict.fromkeys(MEASURES), **medians}
    about = {"precision": "p", "versions": {"it": "1"}, "model_bytes": 2**20, "blanks": {FIRST_TOKEN: "no images"}}
    return {"label": label, "medians": full, "remark": "", **about}


FOUND = {
    "bench": {
        "engines": [
            engine(f"{SHAPE}-int8", 100.0, 600.0, 60.0, 500.0),
            engine("PyTorch float32", 400.0, 200.0, 10.0, 1600.0),
            engine("PyTorch float32 compiled", 50.0, 900.0, 90.0, 100.0),
        ]
    },
    "peers": [
        peer("openvino float32", vision_ms=200.0, prefill_tokens_per_s=300.0),
        peer("openvino bfloat16", vision_ms=150.0, prefill_tokens_per_s=550.0, time_to_first_token_ms=800.0),
    ],
}


def test_targets_compare_with_the_best_of_those_meant():
    table = {(what, wanted): (against, ratio) for what, against, ratio, wanted in targets.reached(FOUND)}
    assert table["int8 vision + projector", 3.2] == ("PyTorch float32", 4.0)
    assert table["int8 vision + projector", 1.4] == ("openvino bfloat16", 1.5)
    assert table["int8 prefill", 1.2] == ("openvino bfloat16", pytest.approx(600 / 550, abs=1e-3))
    assert table["int8 prefill", 2.5] == ("llama.cpp Q8_0", None)
    assert table["int4 decode", 1.1] == ("llama.cpp Q4_0", None)


def test_a_peers_line_has_every_column_and_blanks_have_reasons():
    first, second = peer_lines(FOUND)
    assert len(first) == len(second) == len(COLUMNS)
    assert first[0] == "openvino float32"
    assert first[COLUMNS.index("first token ms (p95)")] == "-"
    assert second[-1] == "2.00"
    assert "- openvino float32: p (it 1); time to first token: no images" in remarks(FOUND)


@pytest.mark.parametrize("file", ["child", *PEERS.values()])
def test_a_peers_own_python_can_import_its_file(file):
    """It has the standard library and what the peer installs, and nothing of ours."""
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import benchmarks.peers.{file}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
