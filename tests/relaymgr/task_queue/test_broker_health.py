import socket
import threading
import time

import pytest

from relaymgr.celery import app
from relaymgr.task_queue import broker_health
from relaymgr.task_queue.broker_health import FRESH_FOR, broker_answers


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The results of the next checks, in order; each check removes one."""
    results: list[bool] = []
    monkeypatch.setattr(broker_health, "_last", None)
    monkeypatch.setattr(broker_health, "_ask", lambda: results.pop(0))
    return results


def test_result_is_used_until_it_is_outdated(answers: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    answers += [True, False]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert broker_answers() and broker_answers()
    monkeypatch.setattr(time, "monotonic", lambda: now + FRESH_FOR)
    assert not broker_answers()


def test_result_of_another_broker_is_not_used(answers: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    answers += [True, False]
    assert broker_answers()
    monkeypatch.setattr(app.conf, "broker_write_url", "redis://127.0.0.1:9/0")
    assert not broker_answers()


def test_others_get_the_previous_result_while_a_thread_checks(
    answers: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.append(True)
    assert broker_answers()
    monkeypatch.setattr(broker_health, "FRESH_FOR", 0.0)
    with broker_health._asking:
        assert broker_answers()


def test_redis_that_hangs_is_reported_quickly_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker_health, "_last", None)
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepts connections and never answers
        url = f"redis://:hidden@127.0.0.1:{hanging.getsockname()[1]}/0"
        monkeypatch.setattr(app.conf, "broker_write_url", url)
        results: list[bool] = []
        check = threading.Thread(target=lambda: results.append(broker_answers()), daemon=True)
        check.start()
        check.join(4.0)
    assert results == [False]
    assert "broker failed: " in caplog.text and "hidden" not in caplog.text
