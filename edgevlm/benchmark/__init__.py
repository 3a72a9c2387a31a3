"""`edgevlm bench`: latency, throughput, memory and energy of bundles, beside PyTorch where that is asked for.

    options = BenchOptions(bundles=(Path("inspector-int8"),), reference="inspector")
    results = bench(options)                    # every engine in a process of its own
    results.engines[0].time_to_first_token_ms.p50

An engine is a file in `engines/`. The parent process never loads a model: what it measures with is not in the way.
"""
