"""Stores on S3 over HTTP: what is asked for, errors in an address, outages."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from harness.object_store import BUCKET, KEY, S3, SECRET

from raycls.errors import CheckpointError, ConfigError
from raycls.run.storage import object_storage, retry
from raycls.run.storage.store import Store

pytestmark = pytest.mark.faults


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    monkeypatch.setattr(object_storage, "_ATTEMPTS", 1)


def test_what_is_written_is_read_moved_and_deleted(s3: S3) -> None:
    store = Store(s3.uri("runs/x"))
    store.check()
    large = bytes(range(256)) * 50_000  # 12.8 MB: sent in two parts
    store.write_bytes("a/small", b"one")
    store.write_bytes("a/large", large)
    store.write_bytes("a/empty", b"")
    assert s3.objects("runs/x/") == {"a/small": b"one", "a/large": large, "a/empty": b""}
    assert store.read_bytes("a/large") == large and store.read_bytes("a/empty") == b""
    assert store.list("a") == ["empty", "large", "small"] and store.list() == ["a"] and store.list("none") == []
    assert store.exists("a") and store.is_folder("a") and not store.exists("b") and store.find_bytes("a/b") is None
    store.move("a", "b", last="small")
    assert store.read_bytes("b/large") == large and not store.exists("a")
    other = store.sub("b").sibling("c")
    other.write_bytes("d", b"two")
    assert store.read_bytes("c/d") == b"two"
    around, name = other.place
    assert name == "c" and Store(around).sub(name).read_bytes("d") == b"two"
    store.delete("b/small")
    store.delete("b/small")
    store.delete_tree("b")
    store.delete_tree("b")
    assert store.list() == ["c"]


def test_a_small_file_is_one_request_and_so_is_reading_a_large_one(s3: S3) -> None:
    store = Store(s3.uri("runs/x"))
    s3.proxy.reset()
    store.write_bytes("small", b"one")
    assert [method for method, _ in s3.proxy.seen] == ["PUT"]
    store.write_bytes("large", b"x" * 3_000_000)
    s3.proxy.reset()
    assert len(store.read_bytes("large")) == 3_000_000
    assert [method for method, _ in s3.proxy.seen] == ["HEAD", "GET"]


def test_lines_reach_the_bucket_with_sync_or_flush_and_not_before(s3: S3) -> None:
    store = Store(s3.uri("runs/x"))
    store.append_line("log", "one")
    assert s3.read("runs/x/log") is None and store.read_lines("log") == ["one", ""]
    store.append_line("log", "two", sync=True)
    assert s3.read("runs/x/log") == b"one\ntwo\n"
    store.append_line("log", "three")
    store.flush()
    assert s3.read("runs/x/log") == b"one\ntwo\nthree\n"
    again = Store(s3.uri("runs/x"))
    again.append_line("log", "four", sync=True)
    assert s3.read("runs/x/log") == b"one\ntwo\nthree\nfour\n"


def test_lines_of_two_threads_are_all_there(s3: S3) -> None:
    store = Store(s3.uri("runs/x"))
    store.append_line("log", "first", sync=True)
    store = Store(s3.uri("runs/x"))

    def write(who: int) -> None:
        for number in range(20):
            store.append_line("log", f"{who} {number}", sync=number % 3 == 0)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    lines = (s3.read("runs/x/log") or b"").decode().splitlines()
    assert sorted(lines) == sorted(["first", *(f"{who} {number}" for who in range(3) for number in range(20))])


@pytest.mark.parametrize("fault", ["refuse", "half", "after", "503 SlowDown", "500 InternalError"])
def test_one_lost_request_is_not_noticed(s3: S3, fault: str) -> None:
    store = Store(s3.uri("runs/x"))
    s3.proxy.fail_from(0, fault, last=0)
    store.write_bytes("a", b"one")
    assert s3.read("runs/x/a") == b"one"
    s3.proxy.fail_from(0, fault, last=0)
    assert store.read_bytes("a") == b"one"
    s3.proxy.fail_from(1, fault, last=1)
    store.delete("a")
    assert s3.read("runs/x/a") is None


def test_an_outage_is_told_once_and_survived(s3: S3) -> None:
    store = Store(s3.uri("runs/x"))
    said: list[str] = []
    store.tell(said.append)
    s3.proxy.stop()
    timer = threading.Timer(5.0, s3.proxy.start)
    timer.start()
    began = time.monotonic()
    store.write_bytes("a", b"one")
    timer.join()
    assert 4.5 < time.monotonic() - began < 40
    assert s3.read("runs/x/a") == b"one"
    assert len(said) == 2 and "does not answer" in said[0] and "answers again" in said[1]
    assert f"127.0.0.1:{s3.proxy.port}" in said[0]


@pytest.mark.slow
def test_an_outage_for_good_is_given_up_in_time_and_then_at_once(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 6.0)
    store = Store(s3.uri("runs/x"))
    said: list[str] = []
    store.tell(said.append)
    store.write_bytes("a", b"old")
    s3.proxy.stop()
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        store.write_bytes("a", b"new")
    assert 5.5 < time.monotonic() - began < 25
    assert "runs/x/a" in str(caught.value.where) and str(s3.proxy.port) in str(caught.value.found)
    assert "rerun the command" in str(caught.value.fix)
    assert len(said) == 1
    began = time.monotonic()
    with pytest.raises(CheckpointError):
        store.write_bytes("b", b"new")
    assert time.monotonic() - began < 5.5  # pyarrow's own tries
    s3.proxy.start()
    assert store.read_bytes("a") == b"old"


def test_a_server_that_does_not_answer_at_all(s3: S3, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "_SILENCE_SECONDS", 1.0)
    store = Store(s3.uri("runs/x"))
    s3.proxy.fail_from(0, "hang")
    began = time.monotonic()
    with pytest.raises(CheckpointError):
        store.write_bytes("a", b"one")
    assert time.monotonic() - began < 20


def test_half_an_upload_is_not_visible(s3: S3, impatient: None) -> None:
    store = Store(s3.uri("runs/x"))
    store.write_bytes("a", b"old")
    for number in range(4):  # the start of the upload, its two parts, its end
        s3.proxy.fail_from(number, "half")
        with pytest.raises(CheckpointError):
            store.write_bytes("a", b"x" * 12_800_000)
        s3.proxy.reset()
        assert s3.read("runs/x/a") == b"old"


def test_a_bucket_that_is_not_there(s3: S3) -> None:
    store = Store(s3.uri("runs").replace(BUCKET, "nobucket", 1))
    with pytest.raises(ConfigError, match="no such bucket") as caught:
        store.check()
    assert caught.value.where == "run.storage" and "s3://nobucket/runs" in str(caught.value.found)
    assert f"127.0.0.1:{s3.proxy.port}" in str(caught.value.found)


def test_an_endpoint_where_nobody_listens_is_told_in_seconds(s3: S3) -> None:
    address = s3.uri("runs")
    s3.proxy.stop()
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="does not answer") as caught:
        Store(address).check()
    assert time.monotonic() - began < 10
    assert f"127.0.0.1:{s3.proxy.port}" in str(caught.value.where) and "endpoint_override" in str(caught.value.fix)


@pytest.mark.parametrize(
    "answer, what",
    [
        ("403 AccessDenied", "does not let this user in"),
        ("403 InvalidAccessKeyId", "does not let this user in"),
        ("403 SignatureDoesNotMatch", "does not let this user in"),
        ("301 PermanentRedirect", "region"),
        ("400 AuthorizationHeaderMalformed", "region"),
    ],
)
def test_an_answer_that_will_not_change_is_told_at_once(s3: S3, answer: str, what: str) -> None:
    store = Store(s3.uri("runs/x"))
    s3.proxy.fail_from(0, answer)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=what) as caught:
        store.check()
    with pytest.raises(CheckpointError):
        store.write_bytes("a", b"one")
    assert time.monotonic() - began < 5
    assert caught.value.where == "run.storage"
    if answer.startswith("403"):
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.fix)
    if answer.startswith("301"):
        assert "eu-west-1" in str(caught.value.found)


def test_an_option_that_is_no_option_is_named(s3: S3) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(s3.uri("runs") + "&regoin=eu-west-1")
    assert caught.value.where == "run.storage" and "regoin" in str(caught.value.found)


@pytest.mark.parametrize("option", ["secret_key", "access_key", "session_token"])
def test_a_secret_among_the_options_is_refused_and_not_shown(s3: S3, option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(s3.uri("runs") + f"&{option}=hush")
    assert "hush" not in str(caught.value) and "***" in str(caught.value)


def test_no_message_holds_a_credential(s3: S3, caplog: pytest.LogCaptureFixture, impatient: None) -> None:
    store = Store(s3.uri("runs/x"))
    texts = [store.uri, store.describe("a"), repr(store), repr(vars(store))]
    for fault in ("refuse", "403 SignatureDoesNotMatch", "400 Bad", "503 SlowDown"):
        s3.proxy.fail_from(0, fault)
        for action in (store.check, lambda: store.write_bytes("a", b"")):
            with pytest.raises((ConfigError, CheckpointError)) as caught:
                action()
            texts += [str(caught.value), repr(caught.value.__cause__)]
    assert not [text for text in [*texts, caplog.text] if KEY in text or SECRET in text]


def test_gcs_is_asked_with_a_limit_and_its_credentials_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "_GCS_SECONDS", 2)
    store = Store("gs://anonymous@bucket/runs?endpoint_override=127.0.0.1:1&scheme=http")
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="does not answer") as caught:
        store.check()
    assert time.monotonic() - began < 30
    assert "bucket/runs" in str(caught.value.where)
    with pytest.raises(ConfigError, match="cannot be opened") as refused:
        Store("gs://bucket/runs?retry=1")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(refused.value.fix)


def test_azure_without_credentials_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    began = time.monotonic()
    store = Store("abfs://runs@account.dfs.core.windows.net/x")
    assert store.describe("a") == "abfs://runs@account.dfs.core.windows.net/x/a"
    with pytest.raises(ConfigError, match="does not let this user in") as caught:
        store.check()
    assert time.monotonic() - began < 30
    assert "AZURE_CLIENT_ID" in str(caught.value.fix)
