"""The process that owns the embedded cloud: its lifecycle, its state on disk, its local API."""
