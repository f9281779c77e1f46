"""The container's environment as a typed model."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_server.problems import ModelRefusedError
from model_server.settings import Settings, available_cores, settings_from_environment

NAME = {"MODEL_SERVER_MODEL_NAME": "churn"}


def test_defaults_are_the_containers() -> None:
    settings = settings_from_environment(NAME | {"PATH": "/bin", "AWS_REGION": "eu-west-1"})
    assert settings == Settings(model_name="churn")
    assert (settings.port, settings.model_dir, settings.workers) == (8080, Path("/opt/ml/model"), 0)


def test_every_setting_is_read_and_an_empty_one_is_the_default() -> None:
    settings = settings_from_environment(
        NAME
        | {
            "MODEL_SERVER_PORT": "9000",
            "MODEL_SERVER_MAX_LATENCY_MS": "2.5",
            "MODEL_SERVER_TARGET_WAIT_MS": "40",
            "MODEL_SERVER_DEADLINE_SECONDS": "29",
            "MODEL_SERVER_TRUST_CODE": "TRUE",
            "MODEL_SERVER_NAN": "refuse",
            "MODEL_SERVER_ENGINE": "",
            "MODEL_SERVER_MODEL_URI": "s3://bucket/key.tar.gz?versionId=abc",
            "MODEL_SERVER_MODEL_SHA256": "0" * 64,
        }
    )
    assert (settings.port, settings.max_latency_ms, settings.trust_code) == (9000, 2.5, True)
    assert (settings.nan, settings.engine) == ("refuse", "")
    assert (settings.target_wait_ms, settings.deadline_seconds) == (40, 29)


def test_sagemakers_port_wins() -> None:
    given = NAME | {"MODEL_SERVER_PORT": "9000", "SAGEMAKER_BIND_TO_PORT": "8081"}
    assert settings_from_environment(given).port == 8081


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "http", "MODEL_SERVER_PORT is 'http'; allowed: a whole number"),
        ("PORT", "70000", "MODEL_SERVER_PORT is '70000'; allowed: 0 to 65535"),
        ("WORKERS", "-1", "MODEL_SERVER_WORKERS is '-1'; allowed: 0 to 256"),
        ("MAX_BATCH_SIZE", "0", "MODEL_SERVER_MAX_BATCH_SIZE is '0'; allowed: 1 or more"),
        ("MAX_BODY_BYTES", "6MB", "MODEL_SERVER_MAX_BODY_BYTES is '6MB'; allowed: a whole number"),
        ("DRAIN_SECONDS", "soon", "MODEL_SERVER_DRAIN_SECONDS is 'soon'; allowed: a number"),
        ("DRAIN_SECONDS", "nan", "MODEL_SERVER_DRAIN_SECONDS is 'nan'; allowed: 0 or more"),
        ("TARGET_WAIT_MS", "-1", "MODEL_SERVER_TARGET_WAIT_MS is '-1.0'; allowed: 0 or more"),
        ("DEADLINE_SECONDS", "-1", "MODEL_SERVER_DEADLINE_SECONDS is '-1.0'; allowed: 0 or more"),
        ("NAN", "ignore", "MODEL_SERVER_NAN is 'ignore'; allowed: allow, refuse"),
        ("TRUST_CODE", "yes", "MODEL_SERVER_TRUST_CODE is 'yes'; allowed: true, false"),
        ("LOG_LEVEL", "loud", "MODEL_SERVER_LOG_LEVEL is 'loud'; allowed: debug, info, warning, error"),
        (
            "MODEL_URI",
            "https://x/y",
            "MODEL_SERVER_MODEL_URI is 'https://x/y'; allowed: s3://bucket/key.tar.gz",
        ),
        ("MODEL_SHA256", "abc", "MODEL_SERVER_MODEL_SHA256 is 'abc'; allowed: 64 lower-case hex digits"),
        ("MODEL_NAME", "a/b", "MODEL_SERVER_MODEL_NAME is 'a/b'; allowed: a name without a slash"),
        ("MODEL_NMAE", "a", "MODEL_SERVER_MODEL_NMAE is not a setting of the model server"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(name: str, value: str, message: str) -> None:
    with pytest.raises(ModelRefusedError) as caught:
        settings_from_environment(NAME | {f"MODEL_SERVER_{name}": value})
    assert message in str(caught.value)


def test_a_missing_name_says_so() -> None:
    with pytest.raises(ModelRefusedError, match="MODEL_SERVER_MODEL_NAME is not set"):
        settings_from_environment({})


def test_there_is_at_least_one_core() -> None:
    assert available_cores() >= 1
