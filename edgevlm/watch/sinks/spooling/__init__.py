"""Records on disk until another machine has them: what a sink uses whose peer may be away."""
