"""modelstacks: put any machine-learning model behind a production HTTP API on AWS with `cdk deploy`."""

__all__ = ["__version__"]

__version__ = "0.1.0"
