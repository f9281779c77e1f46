"""CloudFormation resources of its own: nested stacks and custom resources."""
