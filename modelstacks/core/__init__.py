"""The heart of modelstacks: spec + lock -> Plan.

Imports the standard library and pydantic, and nothing else of ours.
"""
