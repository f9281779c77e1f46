"""What the engine asks of a custom resource's function, from one thread to another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from modelstacks.cloud.services.cloudformation.custom_resources import CustomResources, NoAnswerError


def test_a_question_is_taken_once_and_its_answer_comes_back() -> None:
    room = CustomResources()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(room.ask, "arn", {"RequestType": "Create"}, 30.0)
        [question] = room.take(30.0)
        assert (question["function"], question["event"]) == ("arn", {"RequestType": "Create"})
        assert room.take(0.0) == []
        assert not room.answer("somebody else's", {})
        assert room.answer(question["token"], {"Status": "SUCCESS"})
        assert asked.result() == {"Status": "SUCCESS"}
    assert not room.answer(question["token"], {}), "nobody waits any more"


def test_a_failure_to_ask_says_why() -> None:
    room = CustomResources()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(room.ask, "arn", {}, 30.0)
        [question] = room.take(30.0)
        room.answer(question["token"], {"failure": "function arn does not exist"})
        with pytest.raises(NoAnswerError, match="function arn does not exist"):
            asked.result()


def test_a_function_that_takes_too_long_is_given_up() -> None:
    room = CustomResources()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(room.ask, "arn", {}, 0.01)
        room.take(30.0)
        with pytest.raises(NoAnswerError, match="did not answer within"):
            asked.result()
