"""What can be timed: one module per kind, whose `run(spec, turns)` runs in a worker process."""
