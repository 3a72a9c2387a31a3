"""The process in which a checkpoint's tokenizer is tried before ours has anything to do with it; see `tokenizer_trial`.

A script, run by its path: it imports the tokenizers library and nothing else. The tokenizer comes on standard input.
"""

import contextlib
import sys

PROBES = (
    "What is this? Describe the image, please.",
    "The part is sound: 12 holes (4.5 mm), 3 threads, no scratch.\n\n- left\n- right\n\tindented  twice\r\n",
    "Größer naïve façade \u2013 \u201cquoted\u201d … 価格は東京で 한국어 العربية हिन्दी",
    "\u200b\u00a0 \U0001f469\u200d\U0001f527 \U0001f600 e\u0301 \ufffd \u0000 \U000e0001",
    *(f"{text * 300}!" for text in ("a", " ", "\n", "1", "-", "a ", "aB", "_", "中", "\u0301", "'s")),
)
"""Ordinary texts, and long runs, on which a bad regular expression never ends."""
PANICKED = 3


def main() -> int:
    """Load it and use it. 0: nothing happened that ours could not stand, an ordinary exception included."""
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(ImportError, OSError, ValueError):  # not every system has these limits
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(sys.stdin.buffer.read().decode("utf-8"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for text in PROBES:
            tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)
    except Exception:  # noqa: BLE001 (whoever loads it next says it better)
        return 0
    except BaseException as error:  # noqa: BLE001 (a panic of the library is no Exception)
        sys.stdout.write(" ".join(str(error).split()))
        return PANICKED
    return 0


if __name__ == "__main__":
    sys.exit(main())
