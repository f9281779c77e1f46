"""The emulated AWS account: moto's server in a process of its own, its credentials, and who may call it.

In the server's process:

    server.py        moto's application and the routes that services add to it
    additions.py     what a service's patches.py declares
    patching.py      how a patch runs before or after one of moto's actions
    channel.py       announcements to the data plane, and its reports
    credentials.py   access keys as IAM and STS made them

In the daemon's process:

    process.py       starts and stops the server as a child process
    client.py        connections to its socket, for boto3 and for the account's own routes
    signatures.py    verifies signatures; aws_errors.py words a refusal as the service would
"""
