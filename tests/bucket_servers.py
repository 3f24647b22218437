"""Servers of object storage on this machine, with an empty bucket each."""

import contextlib
import functools
import logging

import pytest


@pytest.fixture(scope="session", params=["gs", "s3"])
def bucket(request, start_once):
    """The address of an empty bucket of a server on this machine, for each kind."""
    start_once({"gs": start_gs, "s3": start_s3}[request.param])
    return f"{request.param}://bucket"


@pytest.fixture(scope="session")
def start_once():
    """Start a server that runs until the end: etils keeps its address."""
    with pytest.MonkeyPatch.context() as m, contextlib.ExitStack() as stack:
        yield functools.cache(lambda start: stack.callback(start(m)))


def start_gs(m):
    m.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    server = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("gcsfs")
    started = server.create_server("localhost", 0, True, default_bucket="bucket")
    started.start()
    host, port = started._api._httpd.server_address
    m.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    return started.stop


def start_s3(m):
    moto = pytest.importorskip("moto.server")
    boto3, s3fs = map(pytest.importorskip, ("boto3", "s3fs"))
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    m.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        m.setenv(name, "test")
    m.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="bucket")
    s3fs.S3FileSystem.clear_instance_cache()
    return server.stop
