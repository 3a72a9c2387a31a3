"""Passwords and tokens: from the environment, and then nowhere to be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm.watch.plan.read import read
from edgevlm.watch.plan.secrets import hide, is_secret, without_user
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import plans

SECRET = "hunter2-Z9"
SINK = "[[sink]]\nkind = 'mqtt'\nhost = 'broker'\nuser = 'me'\npassword = {password}\n{more}"


def text(password: str, more: str = "") -> str:
    return plans.plan(more=SINK.format(password=password, more=more))


def test_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_PASSWORD", SECRET)
    plan = read(plans.write(tmp_path, text('{env = "LINE_PASSWORD"}')))
    assert plan.sinks[0].options.password == SECRET
    assert SECRET not in repr(plan)


@pytest.mark.parametrize(("value", "state"), [(None, "not set"), ("", "empty")])
def test_a_variable_that_says_nothing(tmp_path, monkeypatch, value, state):
    monkeypatch.delenv("LINE_PASSWORD", raising=False)
    if value is not None:
        monkeypatch.setenv("LINE_PASSWORD", value)
    with pytest.raises(
        EdgeVLMError, match=f"line 21: sink 1: password: the environment variable LINE_PASSWORD is {state}"
    ):
        read(plans.write(tmp_path, text('{env = "LINE_PASSWORD"}')))


@pytest.mark.parametrize(
    "value", ["{}", "{evn = 'A'}", "{env = ''}", "{env = 3}", "{env = 'A', more = 1}", "{env = 'A=B'}"]
)
def test_a_table_that_names_no_variable(tmp_path, value):
    with pytest.raises(EdgeVLMError, match="line 21: sink 1: password: it must be text, or "):
        read(plans.write(tmp_path, text(value)))


def test_nothing_else_comes_from_the_environment(tmp_path):
    with pytest.raises(EdgeVLMError, match="line 19: sink 1: host: it must be text, not a table"):
        read(plans.write(tmp_path, plans.plan(more="[[sink]]\nkind = 'mqtt'\nhost = {env = 'HOME'}\n")))


def test_the_digest_does_not_know_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_PASSWORD", SECRET)
    digests = {
        read(plans.write(tmp_path, text(password))).digest
        for password in ("'one'", "'other'", '{env = "LINE_PASSWORD"}')
    }
    with_user = {
        read(
            plans.write(tmp_path, plans.plan(source=f"[source]\nkind = 'rtsp'\nurl = 'rtsp://{user}camera/1'\n"))
        ).digest
        for user in ("me:one@", "me:other@")
    }
    assert (len(digests), len(with_user)) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        text(f"'{SECRET}'", "hots = 'x'"),
        text(f"['{SECRET}']"),
        text(f"'{SECRET}'", "port = 0"),
        text(f"'{SECRET}'", "port = 'x'"),
        text(f"'{SECRET}'").replace("user = 'me'\n", ""),
        plans.plan(more=f"[page]\ntoken = '{SECRET}\\u0007'\n").replace("'", '"'),
        plans.plan(more=f"[page]\ntoken = '{SECRET}'\nport = -1\n"),
        plans.plan(source=f"[source]\nkind = 'rtsp'\nurl = 'rtps://me:{SECRET}@camera/1'\n"),
        plans.plan(source=f"[source]\nkind = 'rtsp'\nurl = 'rtsp://me:{SECRET}@/1'\n"),
        plans.plan(source=f"[source]\nkind = 'rtsp'\nurl = 'rtsp://me:{SECRET}@a'\ntimeout_s = 0\n"),
    ],
)
def test_no_error_shows_them(tmp_path, text):
    with pytest.raises(EdgeVLMError) as error:
        read(plans.write(tmp_path, text))
    assert SECRET not in str(error.value)


@given(st.text(min_size=3, max_size=400), st.sampled_from(["password", "mqtt_password", "token", "API_TOKEN"]))
def test_hide(secret, key):
    """However it stands in a sentence, but for what the sentence itself says."""
    for shown in (secret, repr(secret), repr(secret)[:200] + "..."):
        hidden = hide(f"<{shown}>", {key: secret})
        assert secret not in hidden.strip("<>") or secret in "***"
        assert repr(secret)[1:100] not in hidden or len(secret) < 3


def test_names():
    assert all(map(is_secret, ("password", "token", "broker_password", "PageToken")))
    assert not any(map(is_secret, ("tokens", "password_file", "user", "")))


def test_addresses():
    assert without_user("at rtsp://me:a:b@host:1/x?y=a@b, and http://u@[::1]/") == (
        "at rtsp://***@host:1/x?y=a@b, and http://***@[::1]/"
    )
    assert without_user("http://host/a@b http://host?a@b") == "http://host/a@b http://host?a@b"


def test_headers_of_a_webhook(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", f"Bearer {SECRET}")
    hook = "[[sink]]\nkind = 'webhook'\nurl = 'https://host/'\nheaders = {Authorization = {env = 'HOOK'}, Line = '1'}\n"
    plan = read(plans.write(tmp_path, plans.plan(more=hook)))
    assert plan.sinks[0].options.headers == {"Authorization": f"Bearer {SECRET}", "Line": "1"}
    monkeypatch.setenv("HOOK", "Bearer other")
    assert read(plans.write(tmp_path, plans.plan(more=hook))).digest == plan.digest


def test_a_header_of_any_name_may_be_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", SECRET)
    hook = "[[sink]]\nkind = 'webhook'\nurl = 'https://host/'\nheaders = {X-Line-Key = {env = 'HOOK'}}\n"
    plan = read(plans.write(tmp_path, plans.plan(more=hook)))
    assert plan.sinks[0].options.headers == {"X-Line-Key": SECRET}
    monkeypatch.setenv("HOOK", "another")
    assert read(plans.write(tmp_path, plans.plan(more=hook))).digest == plan.digest
    monkeypatch.setenv("HOOK", f"{SECRET}\u00e4")
    with pytest.raises(EdgeVLMError) as error:
        read(plans.write(tmp_path, plans.plan(more=hook)))
    assert SECRET not in str(error.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(EdgeVLMError, match="headers: X-Line-Key: the environment variable HOOK is not set"):
        read(plans.write(tmp_path, plans.plan(more=hook)))
    assert hide(f"<{SECRET}>", {"headers": {"X-Line-Key": SECRET}}) == "<***>"
