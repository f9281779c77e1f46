"""CloudFormation: from a template to resources. The engine knows no service."""
