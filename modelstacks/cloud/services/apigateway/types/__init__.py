"""AWS::ApiGateway: REST APIs with their resources, methods, stages, keys and usage plans."""

from modelstacks.cloud.services.apigateway.types import apis, stages, usage_plans

__all__ = ["apis", "stages", "usage_plans"]
