"""Compute targets: one file each declares a target's block in the spec and what it cannot do.

stacks/targets/ holds the file of the same name that builds it; a contract test keeps the two in step.
"""
