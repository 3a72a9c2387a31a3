"""From a frame to a verdict: one session per region, golden pictures before it, unchanged regions taken over."""
