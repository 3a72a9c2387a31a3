"""From a verdict to every sink: a thread and a bounded queue for each, so that one which hangs keeps nobody else."""
