"""The embedded cloud: AWS's control plane (moto) and a data plane of real processes, on this machine."""
