"""CloudFormation: from a template to resources, and back after a failure. It knows no service.

    template.py         templates: intrinsic functions, conditions, order             (pure)
    schedule.py         which resource may begin, what is waited for, when to stop    (pure)
    engine.py           create, update, roll back and delete a stack's resources
    scope.py            a stack's resources, and what the names in a template mean
    steps.py            one step: the reason of a failure, the wait until a resource is stable
    resource.py         what a resource type is, and the registry that services fill
    moto_types.py       types that moto's own CloudFormation provides faithfully enough
    schemas.py          the resource provider schemas, with schema_keywords.py and schema_values.py
    environment.py      what a template can refer to outside its stack
    parameters.py       a template and its parameters, checked before an operation begins
    stack.py            one stack and the operation that is under way on it
    operations.py       operations on threads of their own
    change_sets.py, answers.py, backend.py      the API, on top of moto's requests and answers

Why not moto's CloudFormation: it creates resources in the order in which they happen to be looked up, cannot
roll back, reports no event for a resource, and knows none of a REST API's stage, keys or usage plans.
"""
