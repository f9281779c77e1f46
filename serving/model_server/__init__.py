"""The model server: one HTTP process for every compute target; it knows nothing of the toolkit."""

__version__ = "0.1.0"
