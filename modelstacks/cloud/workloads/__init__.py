"""Replicas of every kind: rollout, replacement, scaling, and the faults that can be injected."""
