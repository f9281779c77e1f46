"""The embedded cloud: an AWS account on this machine, which deploys and serves what the CDK CLI gives it.

Two processes. The account's server (account/, cloudformation/, and each service's types.py and patches.py)
is moto with a CloudFormation engine of our own. The daemon (daemon/, host/, network/, workloads/, and each
service's other modules) reads the account back through boto3 and runs what it finds as real processes.

    daemon/            the process that owns the embedded cloud: lifecycle, state, local API
    account/           the account's server, its credentials, and who may call it
    cloudformation/    the engine: template -> resources; it knows no service
    services/<name>/   everything about one AWS service, found by its folder
    network/           security groups, routes, endpoints, policies: may this hop happen, and if not, why not
    workloads/         replicas of every kind: rollout, replacement, scaling, faults
    host/              this machine: processes, images, ports, HTTP
"""
