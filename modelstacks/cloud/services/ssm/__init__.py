"""Systems Manager: parameters that templates refer to."""
