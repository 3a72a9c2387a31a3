"""What a plan will do, and what a frame of it costs on this machine, before it does it."""
