"""API Gateway v2 (VPC links)."""
