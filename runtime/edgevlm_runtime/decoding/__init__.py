"""The decoder: KV cache, prefill, decode, sampling."""
