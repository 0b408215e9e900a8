"""Real autoscaling without containers: a real control plane, KEDA and broker, pods as processes."""
