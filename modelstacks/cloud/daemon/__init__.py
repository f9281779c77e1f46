"""The process that runs the embedded cloud: its lifecycle, its state on disk and its local API."""
