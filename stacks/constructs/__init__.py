"""Reusable constructs.

Mostly L1: a resource here reads like its page in the CloudFormation reference, and synthesizes fast.
"""
