"""What supervisors and Prometheus ask."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.support.chatting import Gate, client, server, user, waiting


def sample(text: str, name: str, **labels: str) -> float:
    """One value."""
    found = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]
    return sum(one.value for one in found if labels.items() <= one.labels.items())


def test_health_and_readiness(tiny, gate: Gate) -> None:
    gate.open()
    with server(tiny) as (address, state), httpx2.Client(base_url=address, trust_env=False) as raw:
        assert (raw.get("/health").text, raw.get("/ready").text) == ("healthy\n", "ready\n")
        state.stopping = True
        assert (raw.get("/health").status_code, raw.get("/ready").status_code) == (200, 503)
        state.models[0].close()
        state.models[0].join()
        assert raw.get("/health").status_code == 503


def test_metrics(tiny, picture) -> None:
    with server(tiny) as (address, state), client(address) as asking, httpx2.Client(trust_env=False) as raw:
        for _ in range(2):
            asking.chat.completions.create(model="tiny", messages=[user("a", picture(1))], max_tokens=3)
        raw.post(f"{address}v1/chat/completions", content=b"{}")
        raw.post(f"{address}v1/chat/completions", json={"model": "x" * 99, "messages": [user("a")]})
        waiting(state, 0, 0)
        text = raw.get(f"{address}metrics").text
    assert sample(text, "edgevlm_serve_requests_total", model="tiny", status="200") == 2
    assert sample(text, "edgevlm_serve_requests_total", model="", status="400") == 1
    assert sample(text, "edgevlm_serve_requests_total", model="", status="404") == 1
    assert sample(text, "edgevlm_serve_tokens_total", kind="answer") == 6
    assert (
        0
        < sample(text, "edgevlm_serve_tokens_total", kind="reused")
        < sample(text, "edgevlm_serve_tokens_total", kind="prompt")
    )
    assert sample(text, "edgevlm_serve_first_token_seconds_count", model="tiny") == 2
    assert sample(text, "edgevlm_serve_waiting", model="tiny") == 0
    assert "x" * 99 not in text
