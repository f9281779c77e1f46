"""Compute targets: one file each declares a target's block in the spec, its refusals, outputs and capacity.

The file of the same name in stacks/targets/ builds it; contract tests compare the two.
"""
