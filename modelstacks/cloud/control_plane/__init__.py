"""The embedded cloud's control plane: moto's server, with a CloudFormation of our own in front of it.

    process.py       starts and stops the server as a child process; what the daemon uses
    client.py        asks the server what AWS's own APIs cannot say
    server.py        the server: moto's application and our additions to it
    template.py      templates: intrinsic functions, conditions, order           (pure)
    engine.py        create, update, roll back and delete a stack's resources    (knows no resource type)
    backend.py       moto's CloudFormation API on top of the engine
    resource.py      what a resource type is, and the registry of them
    types/           one file a service: each type is made through its service's own public API
    moto_types.py    types that moto's own CloudFormation provides faithfully enough
    fixes/           one file a service: where moto's API forgets what it was told

Why not moto's CloudFormation: it makes resources in the order in which they happen to be looked up, cannot
roll back,
reports no event for a resource, and knows none of a REST API's stage, keys or usage plans.
"""
