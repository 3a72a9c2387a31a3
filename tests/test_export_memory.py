"""A checkpoint of a billion parameters exports in bounded memory, whatever its size."""

from __future__ import annotations

from benchmarks.export_memory import measure


def test_a_billion_parameters(tmp_path):
    row = measure("llava-1b", "fp16", tmp_path)
    assert row["parameters"] > 1_000_000_000
    assert row["checkpoint_bytes"] > 2e9
    assert row["peak_rss_gib"] < 1.5
    assert list(tmp_path.iterdir()) == []
