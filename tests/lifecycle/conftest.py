"""What the tests of lives share: a server that replays answers, a client that asks it, and S3."""

from tests.lifecycle.test_commands import models
from tests.providers.conftest import http, replay, replaying
from tests.server.test_sdk_comprehend import s3

__all__ = ["http", "models", "replay", "replaying", "s3"]
