"""A processor with less than this one has: what AVX2 alone is worth, measured on a machine with AVX-512.

ONNX Runtime, onnxruntime-genai and OpenVINO choose their code by the processor's `cpuid` instruction and have no switch
for it. So they are run from copies in which that instruction is an invalid one (`patching`), and a preloaded library
(`hide_avx512.c`) answers it without AVX-512, VNNI and AMX; `/proc/cpuinfo` says the same, in a mount namespace
of their own. Whether it worked is asked of each library (`checks`). llama.cpp is compiled for AVX2 instead. The C
library, which copies memory with what the processor has, is not deceived.

    python -m benchmarks.isa prepare ROOM --peers-work PEERS      # copies, by hard links; llama.cpp is built anew
    python -m benchmarks.isa run ROOM -m benchmarks --only clip-l-336-qwen2-0.5b-avx2 --peers-work ROOM/peers ...

Linux on x86-64, as root (for the mount), with gcc and objdump. The clock and the caches stay this processor's: a real
one with AVX2 alone is mostly older and slower, by the same factor for every engine as far as one can tell.
"""
