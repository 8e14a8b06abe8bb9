"""Quix Streams as its documentation has it: a function for each document, whose results go to a topic."""

import time
from typing import Any

import httpx
from endpoint import BOOTSTRAP, GROUP, INPUT, JOBS, JSON, OUTPUT, SECONDS, SESSION_TIMEOUT, body, results
from quixstreams import Application

http = httpx.Client(timeout=30)


def classify(ticket: dict[str, Any]) -> dict[str, Any]:
    response = http.post(JOBS, content=body([ticket]), headers=JSON)
    response.raise_for_status()
    time.sleep(SECONDS)
    while True:
        job = http.get(response.headers["operation-location"])
        job.raise_for_status()
        if (found := results([ticket], job.json())) is not None:
            return found[0]
        time.sleep(0.005)


app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    consumer_extra_config={"session.timeout.ms": int(SESSION_TIMEOUT * 1000)},
    loglevel="ERROR",
)
tickets = app.dataframe(app.topic(INPUT, value_deserializer="json"))
tickets.apply(classify).to_topic(app.topic(OUTPUT, value_serializer="json"))
app.run()
