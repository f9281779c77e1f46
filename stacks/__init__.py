"""The CDK side: one Plan becomes one stack. The only room that imports aws_cdk.

model_stack.py   wires the rooms below together
targets/         one file a compute target, found by its name
constructs/      what the targets are built of
"""
