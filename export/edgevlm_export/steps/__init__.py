"""The steps of an export, one file each where a step is more than one call."""
