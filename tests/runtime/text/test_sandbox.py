"""Templates from strangers end, in little memory; templates in use are rendered as transformers renders them.

Work is measured by Python's own profiler (calls made), memory by the system: neither knows of the budget.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import models

from edgevlm_runtime.errors import PromptError
from edgevlm_runtime.text.template import SOURCE_CHARACTERS, ChatTemplate

FOLDER = Path(__file__).parent / "chat_templates"
QUESTION = [{"role": "user", "content": "hi"}]
MOST_CALLS = 4_000_000
MOST_MIB = 100
LOOP = "{% for i in range(100000) %}"
SIXTY = "{% for i in range(60) %}"
END = "{% endfor %}"
TWICE = "{% macro a() %}{{ caller() }}{{ caller() }}{% endmacro %}"
ARGUMENTS = "{% macro m() %}{% set ns.t = varargs %}{% endmacro %}"
NS = "{% set ns = namespace(x=[1], y=[1], s='abcdefgh', t=(1,), n=3) %}"


class TooMuchWork(BaseException):
    """More than any bound allows: nothing under test catches it."""


def counted_calls(work: Callable[[], str]) -> str:
    """What `work` gives; fails when it takes more calls than the bound of this file, as Python's own profiler sees."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > MOST_CALLS:
            raise TooMuchWork

    sys.setprofile(count)
    try:
        return work()
    finally:
        sys.setprofile(None)


def render(source: str) -> str | None:
    """The prompt, None where the template is refused: in one line of a length to read."""
    try:
        return ChatTemplate(source, {}).render(QUESTION)
    except PromptError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 600  # noqa: PT017
        return None


HOSTILE = {
    "loops in loops": f"{LOOP}{LOOP}{END}{END}",
    "loops that write": f"{LOOP}{LOOP}x{END}{END}",
    "loops over long text": f"{LOOP}{LOOP}{'x' * 50_000}{END}{END}",
    "a loop's condition": "{% for i in range(100000) if i < 0 %}{% endfor %}" * 300,
    "a macro that calls itself twice": "{% macro a(n) %}{% if n < 60 %}{{ a(n + 1) }}{{ a(n + 1) }}{% endif %}"
    "{% endmacro %}{{ a(0) }}",
    "a macro without end": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a block without end": "{% block a %}{{ self.a() }}{% endblock %}",
    "a recursive loop": "{% for i in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "calls of callers": f"{TWICE}{'{% call a() %}' * 40}x{'{% endcall %}' * 40}",
    "text times": "{{ 'a' * 10 ** 10 }}",
    "list times": "{{ ([1] * 10 ** 9) | length }}",
    "list of lists times": NS + SIXTY + "{% set ns.x = ns.x * 4 %}" + END,
    "text twice": NS + SIXTY + "{% set ns.s = ns.s + ns.s %}" + END,
    "text joined": NS + SIXTY + "{% set ns.s = ns.s ~ ns.s %}" + END,
    "text in a block": NS + SIXTY + "{% set b %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = b %}" + END,
    "text through a filter block": NS + SIXTY + "{% set b %}{% filter upper %}{{ ns.s }}{{ ns.s }}{% endfilter %}"
    "{% endset %}{% set ns.s = b %}" + END,
    "list twice": NS + SIXTY + "{% set ns.x = ns.x + ns.x %}" + END,
    "list of itself": NS + SIXTY + "{% set ns.x = [ns.x, ns.x] %}" + END + "{{ ns.x }}",
    "lists compared": NS
    + SIXTY
    + "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}"
    + END
    + "{{ ns.x == ns.y }}",
    "a list looked for": NS
    + SIXTY
    + "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}"
    + END
    + "{{ ns.x in [ns.y] }}",
    "a tuple as key": NS + SIXTY + "{% set ns.t = (ns.t, ns.t) %}" + END + "{{ {ns.t: 1} | length }}",
    "a tuple as index": NS + SIXTY + "{% set ns.t = (ns.t, ns.t) %}" + END + "{{ {}[ns.t] }}",
    "a tuple got": NS + SIXTY + "{% set ns.t = (ns.t, ns.t) %}" + END + "{{ {}.get(ns.t) }}",
    "a list as JSON": NS + SIXTY + "{% set ns.x = [ns.x, ns.x] %}" + END + "{{ ns.x | tojson }}",
    "a list as text": NS + SIXTY + "{% set ns.x = [ns.x, ns.x] %}" + END + "{{ '%s' % (ns.x,) }}",
    "a list in a text": NS + SIXTY + "{% set ns.x = [ns.x, ns.x] %}" + END + "{{ '{}'.format(ns.x) }}",
    "lists sorted": NS + SIXTY + "{% set ns.x = [ns.x, ns.x] %}" + END + "{{ [ns.x, ns.x] | sort }}",
    "dictionaries of dictionaries": NS + SIXTY + "{% set ns.x = dict(a=ns.x, b=ns.x) %}" + END + "{{ ns.x }}",
    "deep lists": NS + LOOP + "{% set ns.x = [ns.x] %}" + END + "{{ ns.x }}",
    "deep keys": NS + LOOP + "{% set ns.t = (ns.t,) %}" + END + "{{ ns.t in {} }}",
    "deep arguments": NS + ARGUMENTS + LOOP + "{{ m(ns.t, ns.t) }}" + END + "{{ ns.t in {} }}",
    "a namespace of itself": "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{{ ns }}{{ ns.a == [ns] }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "squares": NS + SIXTY + "{% set ns.n = ns.n * ns.n %}" + END,
    "doubles": NS + LOOP + "{% set ns.n = ns.n - -ns.n %}" + END,
    "a long number": "{{ 0x" + "f" * 100_000 + " }}",
    "a number of many digits": "{{ ('f' * 3000000) | int(base=16) }}",
    "rounding": "{{ 5 | round(-10 ** 9) }}",
    "widths": "{{ '%9999999999d' % 1 }}",
    "widths given": "{{ '%*d' % (10 ** 9, 1) }}",
    "places": "{{ '%.9999999999f' % 1.5 }}",
    "formats": "{{ '{:>9999999999}'.format(1) }}",
    "formats of other digits": "{{ '{:>\u0669\u0669\u0669\u0669\u0669\u0669\u0669\u0669\u0669\u0669}'.format(1) }}",
    "formats given": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "formats by filter": "{{ '%9999999999d' | format(1) }}",
    "formats by map": "{{ ['%9999999999d'] | map('format', 1) | list }}",
    "formats by attribute": "{{ ('{:>9999999999}' | attr('format'))(1) }}",
    "formats by item": "{{ '{:>9999999999}'['format'](1) }}",
    "formats of a mapping": "{{ '{a:>9999999999}'.format_map({'a': 1}) }}",
    "one field many times": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "one name many times": "{{ ('%(a)s' * 100000) % {'a': 'a' * 100000} }}",
    "dates": "{{ strftime_now('%9999999999d') }}",
    "many dates": "{{ strftime_now('%A' * 1000000) }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "indent": "{{ ('a\n' * 1000) | indent(10 ** 8) }}",
    "indent by text": "{{ ('a\n' * 10000) | indent('b' * 100000) }}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slice": "{{ [1] | slice(10 ** 8, 0) | list }}",
    "JSON indented": "{{ {'a': [1]} | tojson(indent=10 ** 9) }}",
    "JSON indented by text": "{{ [[1]] | tojson(indent='a' * 3000000) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "replace nothing": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ range(100000) | join('b' * 100000) }}",
    "join by method": "{{ ('b' * 100000).join(['a'] * 50000) }}",
    "strip": "{{ ('a' * 1000000 ~ 'b').strip('b' * 1000000 ~ 'a') }}",
    "methods with widths": "{{ 'a'.ljust(10 ** 9) }}{{ 'a'.zfill(10 ** 9) }}{{ 'a'.rjust(10 ** 9) }}",
    "tabs": "{{ '\t'.expandtabs(10 ** 9) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "bytes": "{{ (1).to_bytes(10 ** 9) }}",
    "sums of lists": "{{ ([['a'] * 100] * 10000) | sum(start=[]) }}",
    "long paths": "{{ ([{}] * 50000) | map(attribute='a' ~ '.a' * 50000) | list }}",
    "long paths to sort by": "{{ ([{}] * 50000) | sort(attribute='a' ~ '.a' * 50000) | list }}",
    "searching": "{% set x = 'a' * 3000000 %}" + LOOP + "{{ 'b' in x }}" + END,
    "slicing": "{% set x = 'a' * 3000000 %}" + LOOP + "{% set y = x[1:] %}" + END,
    "comparing": "{% set x = 'a' * 3000000 %}{% set y = 'a' * 3000000 %}" + LOOP + "{{ x == y }}" + END,
    "changing": "{% set x = ['a' * 10000] * 1000 %}" + LOOP + "{{ loop.changed(x) }}" + END,
    "no steps back": "{{ [-10 ** 18] | map('#step', -10 ** 18) | list }}" + f"{LOOP}{LOOP}{END}{END}",
    "lipsum": "{{ lipsum(10 ** 6) }}",
    "wordwrap": "{{ ('a' * 1000000) | wordwrap(1) }}",
    "escapes of escapes": "{% set ns = namespace(x='&' | e) %}" + SIXTY + "{% set ns.x = ('' ~ ns.x) | e %}" + END * 1,
    "markup": "{% set x = ('a' | e) + '<' * 3000000 %}",
    "brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "conditions in conditions": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
    "loops in loops in loops": "{% for i in [1] %}" * 300 + END * 300,
    "nots": "{{ " + "not " * 20_000 + "1 }}",
    "sums of sums": "{{ " + "+".join(["1"] * 20_000) + " }}",
    "names of names": "{{ a" + ".a" * 20_000 + " }}",
    "opened": "{" * 120_000,
    "comments": "{#" * 60_000,
    "spaces": " " * 120_000 + "{%",
    "backslashes": "{{ '" + "\\" * 120_000,
    "too long": "a" * (SOURCE_CHARACTERS + 1),
    "an error of a megabyte": "{{ raise_exception('x' * 1000000) }}",
}


CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (600, 600))  # instead of for ever
from edgevlm_runtime.errors import PromptError
from edgevlm_runtime.text.template import ChatTemplate
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
ChatTemplate("{{ messages }}", {}).render([])
before = peak()
for name, source in json.load(sys.stdin).items():
    print(name, flush=True)
    try:
        ChatTemplate(source, {}).render([{"role": "user", "content": "hi"}])
    except PromptError as error:
        assert chr(10) not in str(error) and len(str(error)) < 600, error
    assert peak() - before < float(sys.argv[1]), f"{peak() - before:.0f} MiB"
print("done")
"""


def test_hostile_templates_end_in_little_memory() -> None:
    """One process for all of them; the system's own figure of what it took."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(MOST_MIB)],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines()[-1:] == ["done"], (done.stdout.splitlines()[-1:], done.stderr[-2000:])


# Templates made at random: out of what is dangerous, and out of what is in use.

VARIABLES = st.sampled_from(
    ["ns.a", "ns.b", "ns.s", "ns.n", "messages", "messages[0]['content']", "m", "i", "bos_token"]
)
LITTLE = st.sampled_from(
    ["0", "1", "-2", "7", "'x'", "'a b'", "' '", "''", "none", "true", "[]", "[1, 'b']", "{'k': 1}", "1.5"]
)
HUGE = st.sampled_from(
    ["10 ** 9", "99999", "'a' * 99999", "range(99999)", "'%9999999d'", "'{:99999999}'", "[1] * 99999"]
)
BINARY = ["+", "-", "*", "//", "%", "~", "==", "<", "in", "and", "or", "**"]
FILTERS = [
    "length", "upper", "trim", "list", "string", "first", "last", "reverse", "sort", "unique", "sum", "tojson", "int",
    "title", "e", "map('upper')", "join('-')", "replace('a', 'bb')", "indent(2)", "center(9)", "batch(2)", "slice(2)",
    "default('d')", "items", "select", "reject('none')", "round(1)", "truncate(5)", "groupby(0)", "dictsort", "max",
]  # fmt: skip
METHODS = [
    "upper()",
    "strip('a')",
    "split()",
    "replace('', 'b')",
    "join(['p', 'q'])",
    "format(1)",
    "items()",
    "get('k')",
]
METHODS += [
    "startswith('a')",
    "ljust(5)",
    "splitlines()",
    "title()",
    "rsplit(' ', 1)",
    "count('a')",
    "index('a')",
    "copy()",
]
TESTS = [
    "string",
    "mapping",
    "none",
    "defined",
    "odd",
    "iterable",
    "in [1, 'a']",
    "divisibleby(2)",
    "lower",
    "sequence",
]


def expressions(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from(BINARY), inner),
            st.builds("({} | {})".format, inner, st.sampled_from(FILTERS)),
            st.builds("({}).{}".format, inner, st.sampled_from(METHODS)),
            st.builds("({} is {})".format, inner, st.sampled_from(TESTS)),
            st.builds("[{}, {}]".format, inner, inner),
            st.builds("({}, {})".format, inner, inner),
            st.builds("{{{}: {}}}".format, inner, inner),
            st.builds("({})[{}]".format, inner, inner),
            st.builds("({})[:{}]".format, inner, inner),
            st.builds("({} if {} else {})".format, inner, inner, inner),
            st.builds("dict(k={})".format, inner),
            st.builds("f({})".format, inner),
            st.builds("loop.changed({})".format, inner),
        )

    return st.recursive(leaves, grown, max_leaves=6)


def programs(leaves: st.SearchStrategy[str], loops: str) -> st.SearchStrategy[str]:
    inner = expressions(leaves)
    small = st.one_of(
        st.builds("{{{{ {} }}}}".format, inner),
        st.builds("{{% set ns.{} = {} %}}".format, st.sampled_from("absn"), inner),
        st.just("some text\n"),
    )

    def grown(body: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        lines = st.lists(body, max_size=3).map("".join)
        return st.one_of(
            st.builds("{{% for i in {} %}}{}{{% endfor %}}".format, st.just(loops) | inner, lines),
            st.builds("{{% for m in messages if {} %}}{}{{% endfor %}}".format, inner, lines),
            st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, inner, lines, lines),
            st.builds("{{% set b %}}{}{{% endset %}}{{{{ b }}}}".format, lines),
            st.builds("{{% filter upper %}}{}{{% endfilter %}}".format, lines),
            st.builds("{{% call f(1) %}}{}{{% endcall %}}".format, lines),
        )

    body = st.lists(st.recursive(small, grown, max_leaves=8), min_size=1, max_size=4).map("".join)
    start = "{% set ns = namespace(a=[1], b='b', s='abc', n=3) %}"
    macros = [
        "{% macro f(x) %}{{ x }}{% endmacro %}",
        "{% macro f(x) %}{{ x }}{{ f([x, x]) if ns.n > 2 }}{% endmacro %}",
    ]
    return st.builds("{}{}{}".format, st.just(start), st.sampled_from(macros), body)


@settings(max_examples=100, deadline=None)
@given(source=programs(VARIABLES | LITTLE | HUGE, "range(9999)"))
def test_any_program_ends(source: str) -> None:
    counted_calls(lambda: render(source) or "")


CONVERSATION = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is <b>it</b>?"}]},
    {"role": "assistant", "content": "A gear, 12 teeth. \u2713"},
]


@pytest.fixture(scope="module")
def transformers_renders() -> Any:
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    return lambda source, messages: tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False)


@settings(max_examples=250, deadline=None)
@given(source=programs(VARIABLES | LITTLE, "range(3)"))
def test_what_is_rendered_is_what_transformers_renders(transformers_renders: Any, source: str) -> None:
    """Counting changes no result: not the empty ones, not those of a value that is looked at twice."""
    try:
        ours = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(CONVERSATION, False)
    except PromptError:
        return
    assume(" at 0x" not in ours.lower())  # a generator's address
    try:
        theirs = transformers_renders(source, CONVERSATION)
    except Exception:  # noqa: BLE001 -- Jinja computes constants of branches that are never taken, and fails
        return
    assert theirs == ours


TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
LENGTH = 40 * "The part is good, but for a scratch of 3 mm at its edge; see picture {number}. "


@pytest.mark.parametrize("name", TEMPLATES)
def test_long_conversations_fit_the_budget(transformers_renders: Any, name: str) -> None:
    """200 messages of 3,000 characters, and a program that goes through them all for each of them."""
    chat = [
        {"role": role, "content": [{"type": "text", "text": LENGTH.format(number=number)}]}
        for number in range(100)
        for role in ("user", "assistant")
    ]
    variables = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    assert ChatTemplate(TEMPLATES[name], variables).render(chat, False).count("picture 99") in (0, 80)
    again = "{% for m in messages %}{% for n in messages %}{% if n == m %}{{ n.content[0].text }}{% endif %}"
    again += "{% endfor %}{% endfor %}"
    assert ChatTemplate(again, {}).render(chat, False) == transformers_renders(again, chat)


def test_python_says_nothing_about_a_template(recwarn: pytest.WarningsRecorder) -> None:
    render("{{ (1)(2) }}{{ true[1] }}{{ 1 is string }}")
    assert not recwarn.list
