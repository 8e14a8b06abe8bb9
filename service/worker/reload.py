"""On SIGHUP: a new configuration in place of the old while streams run, as far as that is safe.

Routes, limits and the log can change. Everything is looked at before anything changes, and what changes does so between
two steps of the event loop: no document sees a part of it. What cannot be had leaves the old in force, and says so.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from service.dispatch import accounts
from service.dispatch.account import Account
from service.errors import Misconfigured, Unavailable
from service.observability import logs
from service.routing.records import Routing
from service.routing.rules import Rules, check_classes
from service.settings import Branch, Settings

log = structlog.get_logger(__name__)


class Change(NamedTuple):
    """A setting that is not what it was; streams are called by their names."""

    path: tuple[str, ...]
    before: object
    after: object

    def __str__(self) -> str:
        return ".".join(self.path)


def changes(old: Settings, new: Settings) -> list[Change]:
    """Every setting that differs."""
    return list(_differences((), _by_name(old), _by_name(new)))


def _by_name(settings: Settings) -> Mapping[str, object]:
    branches = {name: getattr(settings, name) for name in Settings.model_fields}
    return {**branches, "streams": {stream.name: stream for stream in settings.streams}}


def _differences(path: tuple[str, ...], before: object, after: object) -> Iterator[Change]:
    match before, after:
        case Branch(), Branch() if type(before) is type(after):
            for name, field in type(before).model_fields.items():
                yield from _differences((*path, field.alias or name), getattr(before, name), getattr(after, name))
        case dict(), dict() if before.keys() == after.keys():
            for name in before:
                yield from _differences((*path, name), before[name], after[name])
        case _ if before != after:
            yield Change(path, before, after)


def may_change(change: Change, *, is_shared: bool) -> bool:
    """Whether a setting can change while streams run; `is_shared` is whether limits are, through Redis.

    Replicas call shared rates by their order, and what was spent is known only of money that was limited.
    """
    had_one = change.before is not None and change.after is not None
    match change.path:
        case ("log", _) | ("streams", _, "routes" | "routing" | "otherwise") | ("streams", _, "thresholds", *_):
            return True
        case ("accounts", _, "limits", "quotas_of"):
            return False
        case ("accounts", _, "limits", "spend_per_hour" | "spend_per_day"):
            return had_one
        case ("accounts", _, "limits", name) if name.endswith(("_per_second", "_per_minute")):
            return had_one or not is_shared
        case ("accounts", _, "limits", *_):
            return True
    return False


class Reloading:
    """Takes up a configuration anew; knows what is in force."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        routings: Mapping[str, Routing],
        accounts: Mapping[str, Account],
        check_topics: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._load = load
        self._routings = routings
        self._accounts = accounts
        self._check_topics = check_topics

    async def reload(self) -> None:
        """Have what is configured now be in force, or nothing of it."""
        try:
            new = await asyncio.to_thread(self._load)
            changed = changes(self._settings, new)
            fixed = [each for each in changed if not may_change(each, is_shared=new.redis is not None)]
            if fixed:
                log.error("reload_refused", settings=list(map(str, fixed)), reason="these take a restart")
                return
            rules = self._rules(new)
            await self._check_topics(new)
        except (Misconfigured, Unavailable) as error:
            log.error("reload_failed", reason=str(error))  # noqa: TRY400  the words say where it is wrong
            return
        self._settings = new
        for stream in new.streams:
            self._routings[stream.name].rules = rules[stream.name]
        for name, account in self._accounts.items():
            account.limits.change(new.accounts[name].limits)
        if any(change.path[0] == "log" for change in changed):
            logs.configure(new.log)
        log.info("reloaded", settings=list(map(str, changed)))

    def _rules(self, new: Settings) -> dict[str, Rules]:
        """The rules of each stream. Raises Misconfigured where they make no sense."""
        made = {stream.name: Rules(stream) for stream in new.streams}
        for stream in new.streams:
            before = self._settings.stream(stream.name)
            if stream.fields_asked != before.fields_asked:
                raise Misconfigured(
                    f"streams.{stream.name}.routes: they ask for other fields of the record than before, which"
                    " documents that were read already do not have: that takes a restart"
                )
            check_classes(stream, [accounts.classes(self._accounts[name]) for name in stream.accounts_published])
        return made


async def at_each_hangup(act: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Act at each SIGHUP until cancelled; set `stop` where it means that the terminal that this is run on is gone."""
    loop, hung_up, on_a_terminal = asyncio.get_running_loop(), asyncio.Event(), _has_terminal()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        while True:
            await hung_up.wait()
            hung_up.clear()
            if on_a_terminal and not _has_terminal():
                stop.set()
            else:
                await act()
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it ends, and is not to be cut off in that


def _has_terminal() -> bool:
    try:
        Path("/dev/tty").open("rb").close()
    except OSError:
        return False
    return True
