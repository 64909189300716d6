"""A whole run whose tables live on S3: a real server on loopback, read back by the planner through fsspec."""

from __future__ import annotations

from dataclasses import replace

import boto3
import pytest
from moto.server import ThreadedMotoServer

from engine.config import ExecutorConfig
from engine.jobs import execute
from engine.ledger import Ledger
from unitalking_data.storage import Store


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="corpus")
    monkeypatch.setattr("fsspec.config.conf", {"s3": {"endpoint_url": f"http://{host}:{port}"}})
    yield "s3://corpus"
    server.stop()


def test_a_run_on_s3_equals_a_local_one(toy_run, sources, bucket):
    items, config = sources("a", "none", "bad", "crash", "ccc"), ExecutorConfig(kind="local")
    tables = []
    for run in (toy_run(), replace(toy_run(), ledger=Ledger(Store(f"{bucket}/run")))):
        finished = execute(run, items, config, "items", lambda line: None)
        assert all(stage.todo == 0 for stage in finished.progress)
        specs = [spec for group in run.groups for spec in group.stages]
        tables.append({spec.name: run.ledger.read(spec).select(["key", "status", "attempts"]) for spec in specs})
    assert tables[0] == tables[1]
    assert sorted(finished.quarantine["error_kind"].to_pylist()) == ["crash", "media"]
