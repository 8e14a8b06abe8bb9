import asyncio
import signal
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
import structlog
import trustme

from service.errors import Misconfigured
from service.server.app import Endpoint, Registration, ServeOptions, serving
from service.server.store import FILE_NAME
from tests.server.conftest import BILLING, CRASH, JOBS, KEY, PENDING, VERSION, Serve, process, submission

HEADERS = {"Ocp-Apim-Subscription-Key": KEY}


def registered(models: Path, *names: str) -> tuple[Registration, ...]:
    return tuple(Registration(name, "production", models / name) for name in names or ("tickets",))


async def ended(client: httpx.AsyncClient, location: str) -> dict[str, object]:
    while (shown := (await client.get(location)).json())["status"] in PENDING:  # noqa: ASYNC110  all a client can do
        await asyncio.sleep(0.005)
    found: dict[str, object] = shown
    return found


# What is refused before anything is opened


@pytest.mark.parametrize("endpoints", [(), ("kept",)])
async def test_a_server_with_nothing_to_answer_with_says_so(
    models: Path, tmp_path: Path, endpoints: tuple[str, ...]
) -> None:
    given = tuple(Endpoint(name, models / "tickets") for name in endpoints)
    with structlog.testing.capture_logs() as logged:
        async with serving(ServeOptions(tmp_path, port=0, comprehend_endpoints=given)):
            pass
    assert [one["event"] for one in logged].count("nothing_deployed") == (0 if endpoints else 1)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"host": "0.0.0.0"}, "takes a key"),  # noqa: S104
        ({"host": "server.example"}, "takes a key"),
        ({"host": "::"}, "takes a key"),
        ({"host": "0.0.0.0", "keys": (KEY,)}, "without TLS"),  # noqa: S104
        ({"tls_certificate": Path("cert.pem")}, "both a certificate file and a key file"),
        ({"keys": ("",)}, "empty or holds"),
        ({"keys": ("two words",)}, "empty or holds"),
        ({"keys": ("line\n",)}, "empty or holds"),
        ({"requests_per_minute": 0}, "at least 1"),
        ({"public_url": "ta.example"}, "public URL 'ta.example'"),
        ({"public_url": "https://ta.example/path"}, "is to be https://host"),
    ],
)
def test_options_that_are_not_safe_or_make_no_sense_are_refused(options: dict[str, object], wrong: str) -> None:
    with pytest.raises(Misconfigured, match=wrong) as refused:
        ServeOptions(Path("data"), **options)  # type: ignore[arg-type]
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "127.0.0.9"},
        {"host": "::1"},
        {"host": "localhost"},
        {"host": "0.0.0.0", "keys": (KEY,), "plaintext": True},  # noqa: S104
        {"host": "0.0.0.0", "keys": (KEY,), "tls_certificate": Path("c"), "tls_key": Path("k")},  # noqa: S104
    ],
)
def test_options_that_are_safe_are_taken_and_never_show_a_key(options: dict[str, object]) -> None:
    assert KEY not in repr(ServeOptions(Path("data"), **options))  # type: ignore[arg-type]


def test_a_registration_is_written_as_project_deployment_and_folder() -> None:
    given = Registration.parse("tickets/production=models/a=b/tickets")
    assert given == Registration("tickets", "production", Path("models/a=b/tickets"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tickets", "PROJECT/DEPLOYMENT=FOLDER"),
        ("tickets=models", "PROJECT/DEPLOYMENT=FOLDER"),
        ("tickets/production", "PROJECT/DEPLOYMENT=FOLDER"),
        ("tickets/production=", "PROJECT/DEPLOYMENT=FOLDER"),
        ("my tickets/production=models", "project name 'my tickets'"),
        ("tickets/a/b=models", "deployment name 'a/b'"),
        (f"{'x' * 51}/production=models", "up to 50"),
        ("/production=models", "project name ''"),
    ],
)
def test_a_registration_that_is_none_is_refused_by_its_part(text: str, wrong: str) -> None:
    with pytest.raises(Misconfigured, match=wrong):
        Registration.parse(text)


# What is refused at start


async def refused(options: ServeOptions) -> str:
    with pytest.raises(Misconfigured) as error:
        async with serving(options):
            pytest.fail("serves")
    return str(error.value)


async def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    options = ServeOptions(tmp_path / "data", port=0, models=registered(tmp_path))
    assert str(tmp_path / "tickets") in await refused(options)


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in await refused(ServeOptions(tmp_path, port=port))


async def test_certificate_files_that_are_none_are_named(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    options = ServeOptions(tmp_path / "data", port=0, tls_certificate=file, tls_key=file)
    assert "cert.pem" in await refused(options)
    file.write_text("not a certificate")
    assert "cert.pem" in await refused(options)


async def test_a_folder_in_use_and_rules_that_are_none_are_refused(tmp_path: Path, models: Path) -> None:
    options = ServeOptions(tmp_path / "data", port=0, models=registered(models))
    async with serving(options):
        assert "in use by another server" in await refused(options)
    (tmp_path / "faults.yaml").write_text("- {status: 1}")
    assert "rule 0.status" in await refused(ServeOptions(tmp_path / "data", port=0, faults=tmp_path / "faults.yaml"))


async def test_a_model_missing_from_the_data_folder_is_named_with_its_deployment(tmp_path: Path, models: Path) -> None:
    async with serving(ServeOptions(tmp_path, port=0, models=registered(models))):
        pass
    for file in (tmp_path / "models").rglob("model.zip"):
        file.unlink()
    assert "tickets/production" in await refused(ServeOptions(tmp_path, port=0))


# Serving


async def test_it_serves_on_a_free_port_until_the_context_ends(tmp_path: Path, models: Path) -> None:
    options = ServeOptions(tmp_path, port=0, keys=(KEY,), models=registered(models))
    async with serving(options) as url, httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
        response = await client.post(
            JOBS,
            params={"api-version": VERSION},
            json=submission(BILLING),
            headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.1"},  # anybody can write these
        )
        assert response.headers["operation-location"].startswith(f"{url}{JOBS}/")
        assert (await ended(client, response.headers["operation-location"]))["status"] == "succeeded"
        assert "server" not in response.headers
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient().get(url)


async def test_health_and_metrics_ask_for_no_key_and_tell_no_names(tmp_path: Path, models: Path) -> None:
    options = ServeOptions(tmp_path, port=0, keys=(KEY,), models=registered(models))
    async with serving(options) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/livez")).text == "ok\n"
        assert (await client.get("/readyz")).status_code == 200
        await client.get("/nowhere")
        metrics = (await client.get("/metrics")).text
    assert 'labelstream_server_requests_total{api="none",operation="unknown",status="401"} 1.0' in metrics
    for name in ("request_seconds", "jobs", "jobs_ended", "job_seconds", "documents_classified", "faults"):
        assert f"# HELP labelstream_server_{name}" in metrics
    assert KEY not in metrics


async def test_it_is_not_ready_while_it_cannot_keep_what_it_accepts(serve: Serve) -> None:
    async with serve() as server:
        connection = server.store._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")  # the disk is full
        large = submission("x" * 100_000)
        response = await server.client.post(JOBS, params={"api-version": VERSION}, json=large)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["code"] == "ServiceUnavailable"
        assert "full" in (await server.client.get("/readyz")).text
        assert (await server.client.get("/readyz")).status_code == 503
        assert (await server.client.get("/livez")).status_code == 200
        connection.execute("PRAGMA max_page_count=1000000")  # there is room again
        assert (await server.ended(await server.submit(large)))["status"] == "succeeded"
        assert (await server.client.get("/readyz")).status_code == 200


async def test_rules_can_be_changed_only_where_that_is_allowed(tmp_path: Path) -> None:
    for allowed in (False, True):
        options = ServeOptions(tmp_path, port=0, keys=(KEY,), allow_faults=allowed)
        async with serving(options) as url, httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
            assert (await client.get("/_faults")).status_code == (200 if allowed else 404)


async def test_rules_from_a_file_are_in_force_from_the_start(tmp_path: Path) -> None:
    rules = tmp_path / "faults.yaml"
    rules.write_text("- {on: submit, status: 408}")
    async with serving(ServeOptions(tmp_path, port=0, faults=rules)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post(JOBS)).status_code == 408


async def test_requests_are_limited_where_asked(tmp_path: Path) -> None:
    options = ServeOptions(tmp_path, port=0, requests_per_minute=3)
    async with serving(options) as url, httpx.AsyncClient(base_url=url) as client:
        assert [(await client.post(JOBS)).status_code for _ in range(4)] == [400, 400, 400, 429]


async def test_it_serves_over_tls(tmp_path: Path, models: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    options = ServeOptions(
        tmp_path / "data", port=0, keys=(KEY,), models=registered(models), tls_certificate=certificate, tls_key=key
    )
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with serving(options) as url, httpx.AsyncClient(base_url=url, headers=HEADERS, verify=trust) as client:
        assert url.startswith("https://127.0.0.1:")
        response = await client.post(JOBS, params={"api-version": VERSION}, json=submission(BILLING))
        assert response.headers["operation-location"].startswith(url)


# As a process of its own


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(headers=HEADERS) as client:
        yield client


def submitted(client: httpx.Client, url: str, *texts: str) -> str:
    response = client.post(f"{url}{JOBS}?api-version={VERSION}", json=submission(*texts))
    assert response.status_code == 202, response.text
    location: str = response.headers["operation-location"]
    return location


def at(url: str, location: str) -> str:
    """The same job on a server that has been started again, on another port."""
    return f"{url}{httpx.URL(location).raw_path.decode()}"


def polled(client: httpx.Client, location: str) -> dict[str, object]:
    while True:
        response = client.get(location)
        assert response.status_code == 200, response.text
        shown: dict[str, object] = response.json()
        if shown["status"] not in PENDING:
            return shown


def test_no_job_that_was_accepted_is_lost_when_the_process_is_killed(
    tmp_path: Path, models: Path, client: httpx.Client
) -> None:
    data, accepted, enough = tmp_path / "data", list[str](), threading.Event()
    body = submission(*[f"{BILLING} {CRASH} " * 60] * 10)

    def submit_until_it_is_gone(url: str) -> None:
        with httpx.Client(headers=HEADERS) as own, suppress(httpx.TransportError):
            while True:
                response = own.post(f"{url}{JOBS}?api-version={VERSION}", json=body)
                accepted.append(response.headers["operation-location"])
                if len(accepted) == 40:
                    enough.set()

    with (
        process(data, "--model", f"tickets/production={models / 'tickets'}") as (url, running),
        ThreadPoolExecutor(4) as clients,
    ):
        for _ in range(4):
            clients.submit(submit_until_it_is_gone, url)
        enough.wait()
        running.send_signal(signal.SIGKILL)
    with closing(sqlite3.connect(data / FILE_NAME)) as state:
        (unfinished,) = state.execute("SELECT count(*) FROM jobs WHERE request IS NOT NULL").fetchone()
    assert unfinished > 0
    with process(data) as (url, _):  # the model comes from the data folder now
        assert {polled(client, at(url, location))["status"] for location in accepted} == {"succeeded"}


def test_it_stops_when_asked_to_and_keeps_everything(tmp_path: Path, models: Path, client: httpx.Client) -> None:
    data = tmp_path / "data"
    with process(data, "--model", f"tickets/production={models / 'tickets'}") as (url, running):
        location = submitted(client, url, BILLING)
        before = polled(client, location)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0
        said = running.stderr.read() if running.stderr else ""
        assert KEY not in said
        assert BILLING not in said
    assert not list(data.glob("*-wal"))
    with process(data) as (url, _):
        assert polled(client, at(url, location)) == before
        submitted(client, url, CRASH)


def test_another_server_on_the_same_folder_is_told_so(tmp_path: Path) -> None:
    with process(tmp_path), pytest.raises(AssertionError, match="in use by another server"), process(tmp_path):
        pass


def test_what_is_kept_is_for_its_owner_only(tmp_path: Path) -> None:
    with process(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0
