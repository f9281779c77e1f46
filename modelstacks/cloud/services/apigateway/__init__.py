"""API Gateway (REST APIs)."""
