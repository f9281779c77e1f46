"""How a client may ask: SageMaker's container contract, the Open Inference Protocol, the tunnel."""
