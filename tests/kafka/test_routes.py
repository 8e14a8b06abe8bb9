"""Routes on the real broker: each result is where the rules say, and says so itself."""

from collections import Counter

import orjson

from tests.kafka import topics
from tests.kafka.tickets import MAKE_TOPIC, Tickets, Words, running
from tests.kafka.topics import read


async def test_results_are_copied_as_the_rules_say_and_tell_which_they_met(bootstrap: str, topic: MAKE_TOPIC) -> None:
    vip, long, rest, audit = (topic() for _ in range(4))
    tickets = Tickets(
        bootstrap,
        topic,
        document={"language": "/lang"},
        routing="first_match",
        routes=[
            {"name": "vip", "any": [{"fields": {"/customer/tier": "gold"}}, {"headers": {"vip": "*"}}], "to": vip},
            {"name": "long", "best": "long", "language": "de", "not": {"characters_below": 20}, "to": [long, audit]},
        ],
        otherwise=rest,
    )
    said = "a ticket of more than five words"
    tickets.fill(
        [
            orjson.dumps({"id": "gold", "text": said, "lang": "de", "customer": {"tier": "gold"}}),
            orjson.dumps({"id": "german", "text": said, "lang": "de-AT", "customer": {"tier": "iron"}}),
            orjson.dumps({"id": "english", "text": said, "lang": "en"}),
            orjson.dumps({"id": "short", "text": "a ticket", "lang": "de"}),
        ]
        * 25
    )
    tickets.fill([orjson.dumps({"id": "header", "text": "a ticket"})], headers=[("vip", b"")])
    async with running(tickets, Words()):
        await tickets.are_done()

    def there(name: str) -> Counter[str]:
        return Counter(orjson.loads(each.value or b"")["id"] for each in read(bootstrap, name))

    assert there(vip) == {"gold": 25, "header": 1}
    assert there(long) == there(audit) == {"german": 25}
    assert there(rest) == {"english": 25, "short": 25}
    results = tickets.results()
    assert len(results) == len(topics.counted(results)) == 101
    routes = {(body := orjson.loads(each.value or b""))["id"]: body["route"] for each in results}
    assert routes == {
        "gold": {"rule": "vip", "to": [vip]},
        "header": {"rule": "vip", "to": [vip]},
        "german": {"rule": "long", "to": [long, audit]},
        "english": {"rule": "otherwise", "to": [rest]},
        "short": {"rule": "otherwise", "to": [rest]},
    }
