"""Compile a bundle's graphs to engines ahead of time: `run.compile_bundle(options.CompileOptions(...))`, behind
`edgevlm compile`.

One concern per file: `options`, `modules` (which library, and what to say when it is missing), `network` (parse and
check), `profiles` (shapes), `settings` (the builder's), `monitor` (progress), `messages` (what the builder says),
`build` (one engine), `isolated` and `worker` (the same in a process of its own, which must start without torch), `run`
(all of a bundle, atomically).
"""
