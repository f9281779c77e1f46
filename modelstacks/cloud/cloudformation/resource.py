"""What a CloudFormation resource type is, and the registry of those that are emulated.

A type creates, updates and deletes its resource through the service's public API, as AWS's own providers do.
So a wrong template gets the API's own error, and boto3 reads back afterwards what the API received.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Lock, RLock
from typing import Any, ClassVar

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from modelstacks.cloud.cloudformation.template import TemplateError
from modelstacks.cloud.services import service_modules

__all__ = [
    "LONGEST_STABILISATION",
    "ONE_CALL_AT_A_TIME",
    "Properties",
    "Provisioned",
    "Request",
    "ResourceError",
    "ResourceType",
    "api_input",
    "client",
    "dynamic_reference",
    "emulated_types",
    "ignoring",
    "provides",
    "resolves",
    "tag_list",
    "undoing",
]

Properties = dict[str, Any]

#: Seconds for which CloudFormation waits until a resource is stable: three hours for an ECS service, and here
#: for every type that does not say otherwise.
LONGEST_STABILISATION = 3 * 3600.0

_SUFFIX_ALPHABET = string.ascii_letters + string.digits
_session_lock = Lock()

#: Held for the length of one call to moto. Its backends are plain dictionaries: a list that is read while
#: another thread writes to it breaks off. Between a stack's resources others have their turn.
ONE_CALL_AT_A_TIME = RLock()


class ResourceError(Exception):
    """A resource cannot be made, changed or deleted; the message is the event's status reason."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A resource that exists: what Ref gives, and what Fn::GetAtt gives."""

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """The desired state of one resource of one stack, with its properties resolved."""

    type_name: str
    logical_id: str
    properties: Properties
    stack_name: str
    stack_id: str
    account: str
    region: str

    def client(self, service: str) -> Any:
        """A boto3 client of this server, in the stack's region; its calls stay in this process."""
        return client(service, self.region)

    def call(
        self, service: str, operation: str, properties: Mapping[str, Any] | None = None, /, **more: Any
    ) -> Any:
        """Call an API's operation (such as "CreateVpcLink") with properties in CloudFormation's spelling.

        `more` is spelt as the API spells it, and wins. A property that the operation does not know is
        refused.
        """
        client = self.client(service)
        shape = client.meta.service_model.operation_model(operation).input_shape
        given = api_input(properties or {}, shape, self.type_name)
        return getattr(client, xform_name(operation))(**{**given, **more})

    def without(self, *names: str) -> Properties:
        """The properties, less those named."""
        return {name: value for name, value in self.properties.items() if name not in names}

    def only(self, *names: str) -> Properties:
        """Those of the named properties that are set."""
        return {name: self.properties[name] for name in names if name in self.properties}

    def generated_name(self, longest: int = 255, *, lower: bool = False, suffix: int = 12) -> str:
        """A physical name as CloudFormation makes one: stack, logical id, random suffix."""
        tail = "-" + "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(suffix))
        name = f"{self.stack_name}-{self.logical_id}"[: longest - len(tail)].rstrip("-") + tail
        return name.lower() if lower else name

    def arn(self, service: str, resource: str) -> str:
        """An ARN in this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


class ResourceType:
    """One CloudFormation resource type.

    `update` is asked only where no property in `immutable` has changed. An update that returns None, as the
    default does, makes the engine create a new resource and delete the old one after all else succeeded.
    """

    immutable: ClassVar[frozenset[str]] = frozenset()

    def create(self, request: Request) -> Provisioned:
        """Make the resource. Raises ResourceError or botocore's ClientError with the reason."""
        raise NotImplementedError

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        """Change the resource in place, from `before` to the request's properties.

        None asks for a replacement.
        """
        return None

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        """The resource once it is stable after `create` or `update`, None while it is not.

        Asked again and again until it answers. Raises like `create` where the resource will never be stable.
        """
        return current

    def stabilises_within(self, request: Request) -> float:
        """Seconds until CloudFormation stops waiting and fails the resource."""
        return LONGEST_STABILISATION

    def delete(self, request: Request, current: Provisioned) -> None:
        """Delete the resource; it is no error if it does not exist any more."""
        raise NotImplementedError


_types: dict[str, ResourceType] = {}


def provides(name: str) -> Any:
    """Class decorator: this class emulates the CloudFormation type `name`."""

    def register(cls: type[ResourceType]) -> type[ResourceType]:
        if name in _types:
            raise ValueError(
                f"{name} is provided twice: {type(_types[name]).__qualname__} and {cls.__qualname__}"
            )
        _types[name] = cls()
        return cls

    return register


_Resolver = Callable[[str, str], str]
_references: dict[str, _Resolver] = {}


def resolves(*services: str) -> Callable[[_Resolver], _Resolver]:
    """Return a decorator for a function that gives the value of `{{resolve:SERVICE:REFERENCE}}`.

    The function gets the reference and the region, and raises TemplateError or ClientError without a value.
    """

    def register(resolver: _Resolver) -> _Resolver:
        _references.update(dict.fromkeys(services, resolver))
        return resolver

    return register


def dynamic_reference(service: str, reference: str, region: str) -> str:
    """Return the value of a dynamic reference. Raises TemplateError for a service that has none."""
    emulated_types()
    if service not in _references:
        raise TemplateError(
            f"Dynamic references to {service} are not supported; allowed: {', '.join(sorted(_references))}"
        )
    return _references[service](reference, region)


@cache
def emulated_types() -> Mapping[str, ResourceType]:
    """Every type that a service's types.py provides, by CloudFormation name."""
    service_modules("types")
    return _types


@cache
def client(service: str, region: str) -> Any:
    with _session_lock:  # making a client is the one thing that a session cannot do from two threads at once
        return boto3.Session(
            aws_access_key_id="cloudformation",
            aws_secret_access_key="cloudformation",  # noqa: S106  no secret: it never leaves this process
            region_name=region,
        ).client(service, config=Config(retries={"total_max_attempts": 1}, parameter_validation=True))


def api_input(value: Any, shape: Shape, place: str) -> Any:
    """Convert a value from CloudFormation's spelling and types to those of the API's `shape`.

    CloudFormation capitalises every member and lets numbers and booleans be text; the APIs do neither.
    Raises ResourceError naming the property that the shape does not know.
    """
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        members = {name.lower(): (name, member) for name, member in shape.members.items()}
        converted = {}
        for key, inner in value.items():
            if key.lower() not in members:
                raise ResourceError(
                    f"Properties validation failed for {place}: extraneous key [{key}] is not permitted"
                )
            name, member = members[key.lower()]
            converted[name] = api_input(inner, member, f"{place}/{key}")
        return converted
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [api_input(item, shape.member, place) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return {str(key): api_input(inner, shape.value, f"{place}/{key}") for key, inner in value.items()}
    match shape.type_name:
        case "string" if isinstance(value, bool):
            return str(value).lower()
        case "string" if isinstance(value, (dict, list)):
            return json.dumps(value)  # policies: objects in a template, text in the API
        case "string":
            return str(value)
        case "integer" | "long" if isinstance(value, (str, float)) and not isinstance(value, bool):
            return _number(value, place, int)
        case "float" | "double" if isinstance(value, str):
            return _number(value, place, float)
        case "boolean" if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
    return value


def _number(value: str | float, place: str, kind: type[int | float]) -> float:
    try:
        return kind(value)
    except ValueError:
        raise ResourceError(
            f"Properties validation failed for {place}: expected a number, found {value!r}"
        ) from None


def tag_list(properties: Mapping[str, Any]) -> list[dict[str, str]]:
    """The resource's tags, `[{"Key": ..., "Value": ...}]`."""
    return [{"Key": str(tag["Key"]), "Value": str(tag["Value"])} for tag in properties.get("Tags", [])]


class ignoring:  # noqa: N801  reads as a statement, like contextlib.suppress
    """Suppress API errors with these codes, for example "not found" on a deletion."""

    def __init__(self, *codes: str) -> None:
        self.codes = codes

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, ClientError) and error.response["Error"]["Code"] in self.codes


@contextmanager
def undoing(undo: Callable[[], object]) -> Iterator[None]:
    """Undo the first step of a creation if a later one is refused."""
    try:
        yield
    except Exception:
        undo()
        raise
