"""A simulation of autoscaling: what happens to a burst of invocations, under which settings."""
