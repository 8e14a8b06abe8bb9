"""Quotas and money that replicas share exactly, through Redis.

A rate is shared by time: whoever has a slice may use all of the rate for its length, and slices do not overlap (GCRA,
ITU-T I.371, kept in one place). So what all replicas send is paced as one would pace it, and whoever has more to send
gets more. Money is granted bit by bit before it is spent. A `Retry-After` that one hears keeps all quiet.

Calls wait for Redis only when their slice is used up, so one round trip serves a tenth of a second of calls. Where
Redis cannot be reached, each replica goes by the share of its partitions, as it does without.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from service import settings
from service.dispatch.account import Account
from service.errors import Misconfigured, Unavailable
from service.limits.costs import Grant
from service.limits.gate import Asked, Limits
from service.observability.telemetry import Telemetry

_EVERY = 0.5
"""Seconds after which it is asked whether others were told to be quiet, or have spent, at the latest."""
_PATIENCE = 1.0
"""Seconds that Redis may take for an answer."""
_LONGEST_PAUSE = 5.0
_LATER = "later "
_HOUR_KEPT, _DAY_KEPT = 7200, 172_800
"""Seconds that it is kept what was spent in an hour and in a day."""
_HORIZON = 0.1
"""Seconds before it begins that a slice may be given, so that nothing is lost between two of them."""

log = structlog.get_logger(__name__)

_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local rates, horizon = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for i = 1, rates do
    local wanted = tonumber(ARGV[2 + i])
    local free_at = tonumber(redis.call('GET', KEYS[i]) or '0')
    if wanted <= 0 then
        answer[i] = ''
    elseif free_at - now > horizon then
        answer[i] = 'later ' .. string.format('%.6f', free_at - now - horizon)
    else
        local begin = math.max(free_at, now)
        local ends = begin + wanted
        redis.call('SET', KEYS[i], string.format('%.6f', ends), 'PX', math.ceil((ends - now) * 1000) + 1000)
        answer[i] = string.format('%.6f', begin - now)
    end
end
local quiet = tonumber(ARGV[rates + 3])
local left = redis.call('PTTL', KEYS[rates + 1])
if quiet > 0 and quiet * 1000 > left then
    left = math.ceil(quiet * 1000)
    redis.call('SET', KEYS[rates + 1], '1', 'PX', left)
end
answer[rates + 1] = tostring(math.max(left, 0))
local granted, least = tonumber(ARGV[rates + 4]), tonumber(ARGV[rates + 5])
local limits, spent, lives = {}, {}, {}
for i = 1, 2 do
    limits[i] = tonumber(ARGV[rates + 3 + 3 * i])
    spent[i] = tonumber(ARGV[rates + 4 + 3 * i])
    lives[i] = tonumber(ARGV[rates + 5 + 3 * i])
end
for i = 1, 2 do
    local limit = limits[i]
    if limit >= 0 then
        local before = tonumber(redis.call('GET', KEYS[rates + 1 + i]) or '0') + spent[i]
        if before > 0 then
            granted = math.min(granted, math.max(limit - before, 0))
        end
    end
end
if granted < least then
    granted = 0
end
for i = 1, 2 do
    local total = '0'
    if limits[i] >= 0 then
        local key = KEYS[rates + 1 + i]
        if spent[i] + granted ~= 0 then
            redis.call('INCRBYFLOAT', key, string.format('%.12f', spent[i] + granted))
            redis.call('EXPIRE', key, lives[i])
        end
        total = redis.call('GET', key) or '0'
    end
    answer[rates + 2 + i] = total
end
answer[rates + 2] = string.format('%.12f', granted)
return answer
"""


@asynccontextmanager
async def shared(
    branch: settings.Redis | None, group_id: str, accounts: Iterable[Account], telemetry: Telemetry
) -> AsyncIterator[None]:
    """Have accounts share their limits with all of the group for the length of the block. Raises Misconfigured."""
    given = [account for account in accounts if account.limits.is_for_the_group]
    if branch is None or not given:
        yield
        return
    client = _client(branch)
    async with asyncio.TaskGroup() as tasks:
        sharers = [Sharer(client, f"{branch.prefix}:{{{group_id}.{each.name}}}", each, telemetry) for each in given]
        running = [tasks.create_task(sharer.run()) for sharer in sharers]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            for sharer in sharers:
                await sharer.leave()
            await client.aclose()


async def rehearse(branch: settings.Redis) -> None:
    """See that Redis lets us in. Raises Misconfigured or Unavailable."""
    client = _client(branch)
    try:
        async with asyncio.timeout(_PATIENCE):
            await client.ping()
    except _failures() as error:
        raise Unavailable(f"redis: {branch.host}:{branch.port} does not let us in: {type(error).__name__}") from None
    finally:
        await client.aclose()


def _client(branch: settings.Redis) -> Any:
    try:
        from redis.asyncio import Redis  # noqa: PLC0415  an extra, for those who want it
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise Misconfigured("redis: the library is not installed: pip install 'labelstream[redis]'") from None
    secret = branch.secret
    return Redis(
        host=branch.host,
        port=branch.port,
        db=branch.database,
        username=branch.username,
        password=secret.get_secret_value() if secret is not None else None,
        ssl=branch.tls,
        ssl_ca_certs=str(branch.ca_file) if branch.ca_file is not None else None,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        client_name="labelstream",
    )


class Sharer:
    """Asks for one account's part of what all replicas share, as its gate needs it."""

    def __init__(self, client: Any, place: str, account: Account, telemetry: Telemetry) -> None:
        self._client = client
        self._place = place
        self._account = account
        self._limits: Limits = account.limits
        self._script = client.register_script(_SCRIPT)
        self._wanted = asyncio.Event()
        self._is_shared: bool | None = None
        self._asking = telemetry.sharing(account.name, account.kind)
        self._limits.wake = self._wanted.set
        self._wanted.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        pause = 0.0
        while not _is_cancelled():  # one that comes in with an answer is lost on the library
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._wanted.wait()
            self._wanted.clear()
            asked = self._limits.asks()
            try:
                with self._asking.timed():
                    async with asyncio.timeout(_PATIENCE):
                        answer = await self._script(self._keys(asked), self._arguments(asked))
            except _failures() as error:
                self._alone(error)
                self._limits.tell_again(asked)
                pause = min(_LONGEST_PAUSE, 2 * pause or _EVERY)
                await asyncio.sleep(pause)
            else:
                pause = 0.0
                await asyncio.sleep(self._give(asked, answer))

    async def leave(self) -> None:
        """Give back what is not needed."""
        rest = self._limits.rest()
        if self._is_shared and (rest.money.spent_in_hour or rest.money.spent_in_day):
            with suppress(*_failures()):
                async with asyncio.timeout(_PATIENCE):
                    await self._script(self._keys(rest), self._arguments(rest))
        self._limits.alone()

    def _keys(self, asked: Asked) -> list[str]:
        place = self._place
        rates = [f"{place}:rate:{number}" for number in range(len(asked.slices))]
        return [*rates, f"{place}:quiet", f"{place}:hour:{asked.money.hour}", f"{place}:day:{asked.money.day}"]

    def _arguments(self, asked: Asked) -> list[object]:
        money = asked.money
        per_hour, per_day = (-1 if limit is None else limit for limit in self._limits.spend)
        hour, day = (per_hour, money.spent_in_hour, _HOUR_KEPT), (per_day, money.spent_in_day, _DAY_KEPT)
        return [len(asked.slices), _HORIZON, *asked.slices, asked.quiet, money.wanted, money.least, *hour, *day]

    def _give(self, asked: Asked, answer: Sequence[str]) -> float:
        """Hand out what has come; gives the seconds before which it is not worth asking again."""
        if not self._is_shared:
            self._is_shared = True
            log.info("limits_shared", account=self._account.name)
            self._asking.is_shared(shared=True)
        count, later = len(asked.slices), list[float]()
        slices = list[tuple[float, float] | None]()
        for wanted, told in zip(asked.slices, answer, strict=False):
            if told.startswith(_LATER):
                later.append(float(told.removeprefix(_LATER)))
            slices.append((float(told), wanted) if told and not told.startswith(_LATER) else None)
        quiet, granted, hour, day = (float(each) for each in answer[count:])
        self._limits.given(asked, slices, quiet / 1000, Grant(granted, hour, day))
        return min(later, default=0.0)

    def _alone(self, error: Exception) -> None:
        if self._is_shared is not False:
            self._is_shared = False
            log.warning("limits_not_shared", account=self._account.name, reason=type(error).__name__)
            self._asking.is_shared(shared=False)
        self._limits.alone()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failures() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError  # noqa: PLC0415  as in `_client`

    return (RedisError, OSError, TimeoutError)
