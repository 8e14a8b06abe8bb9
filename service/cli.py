"""The commands: each one short, each the same pipeline with other edges.

Exit codes: 0 done, 1 failed, 2 wrong usage, configuration or data, 130 interrupted. A command imports what it runs on
when it runs: whoever asks for help, or mistypes, is not to wait for Kafka's client and a web server.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import structlog
import typer
from rich.markup import escape
from rich.table import Table

from service import console, settings
from service.errors import CallFailed, Misconfigured, ModelError
from service.lifecycle import commands
from service.model.examples import ExamplesError
from service.observability import logs
from service.progress import Advance, Steps
from service.review.commands import reviews
from service.server.content_safety_samples import MOST_BYTES
from service.settings import Log

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from service import demo as demonstration
    from service import replay as replaying
    from service import trial_report as trials
    from service.bench import load as benchmark
    from service.bench.figure import Figure
    from service.simulation import play as playing

T = TypeVar("T")
_MOST_SHOWN = 20
Load = Callable[[], settings.Settings]
"""Reads the configuration that a command was given, as it is now."""

app = typer.Typer(
    name="labelstream",
    help="Stream documents from Kafka through text classifiers and publish classes and scores back to Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(commands.models, name="models")
app.add_typer(reviews, name="reviews")

Config = Annotated[Path, typer.Argument(help="The configuration, a YAML file; see config/triage.yaml.")]


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Scenario(StrEnum):
    """The shipped samples."""

    TICKETS = "tickets"
    MODERATION = "moderation"


@app.command()
def run(
    config: Config,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes of the same group, one for each core.")] = 1,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="How much is logged, whatever the configuration says.")
    ] = None,
) -> None:
    """Classify the configured streams until SIGTERM or SIGINT; SIGHUP takes up routes, limits and log anew."""
    from service.worker import worker
    from service.worker import workers as several

    load = partial(_load, config, log_level)
    wanted = load()
    logs.configure(wanted.log)
    if workers == 1:
        console.run(lambda stop: worker.work(wanted, stop, load=load))
    elif code := console.run(lambda stop: several.supervise(wanted, workers, partial(_work, load), stop)):
        raise typer.Exit(code)


def _load(config: Path, log_level: LogLevel | None) -> settings.Settings:
    """The settings of a file, with the option over them."""
    wanted = settings.load(config)
    if log_level is None:
        return wanted
    return wanted.model_copy(update={"log": wanted.log.model_copy(update={"level": log_level.value})})


def _work(load: Load, beside: "Connection", number: int) -> None:
    """One of several workers, in a process of its own."""
    from service.worker import workers

    try:
        logs.configure(load().log)
        console.run(lambda stop: workers.work(load, number, beside, stop))
    except BaseException as error:  # noqa: BLE001  the outermost edge
        sys.exit(_ended(error))


@app.command()
def check(
    config: Config,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Have each account classify this text, and say what that was billed. Without, no document is sent, "
            "and it is said what one would be billed.",
        ),
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Only try the routes on these examples (YAML), with nothing opened.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Open everything that `run` would open, ask each account whether it lets us in, and close again."""
    from service import checks

    wanted = settings.load(config)
    if cases is not None:
        _try(wanted, cases, as_json=as_json)
        return
    logs.configure(Log(level="error"))
    findings = console.run_unless_interrupted(checks.check(wanted, probe))
    well = all(finding.ok for finding in findings)
    if as_json:
        console.print_json({"ok": well, "checks": findings})
    else:
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
            console.out().print(f"{mark}  {escape(finding.said)}", highlight=False, soft_wrap=True)
    if not well:
        raise typer.Exit(1)


def _try(wanted: settings.Settings, file: Path, *, as_json: bool) -> None:
    """Hold routes against cases."""
    from service.routing import cases

    tried = cases.tried(wanted, cases.cases(file))
    well = all(each.ok for each in tried)
    if as_json:
        console.print_json({"ok": well, "cases": tried})
    else:
        table = Table("", "case", "goes to", "by", "should go to")
        for each in tried:
            mark = "[green]ok[/]" if each.ok else "[red]no[/]"
            should = [*each.should, *([f"by {each.rule}"] if each.rule else ())]
            said = [each.name, *("\n".join(part) for part in (each.to, each.rules, should))]
            table.add_row(mark, *map(escape, said))
        console.out().print(table)
    if not well:
        raise typer.Exit(1)


@app.command()
def classify(  # noqa: PLR0917  options, which Typer reads by name
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="JSON lines, .csv or .txt (a document a line).")
    ],
    out: Annotated[Path, typer.Option(help="Where results go, a JSON line each; what is refused goes to OUT.dead.")],
    model: Annotated[Path | None, typer.Option(help="Classify with this trained model.")] = None,
    config: Annotated[Path | None, typer.Option(help="Classify with the accounts of this configuration.")] = None,
    stream: Annotated[str | None, typer.Option(help="Which stream of the configuration.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Classify files; a run that is broken off goes on where it stopped when it is started again."""
    from service import classify as classifying

    logs.configure(Log(level="warning"))
    if (model is None) == (config is None):
        raise typer.BadParameter("give either --model or --config")
    if model is not None:
        known, edges = classifying.local_stream(model)
    elif config is not None:
        configured = settings.load(config)
        known, edges = configured.accounts, classifying.configured_stream(configured, stream)
    total = sum(path.stat().st_size for path in inputs if path.exists())
    with Steps(console.err()).step(f"classifying {len(inputs)} file(s)", total) as advance:
        summary = console.run(lambda stop: classifying.classify(inputs, out, known, edges, stop=stop, advance=advance))
    if as_json:
        console.print_json(summary)
    else:
        console.out().print(str(summary), highlight=False, soft_wrap=True)
    if not summary.finished:
        raise typer.Exit(130)


@app.command()
def demo(
    scenario: Annotated[Scenario, typer.Option(help="Which of the shipped samples.")] = Scenario.TICKETS,
    data: Annotated[Path | None, typer.Option(help="Labelled documents of your own (JSON lines).")] = None,
    documents: Annotated[int | None, typer.Option(min=1, help="How many to stream, repeating them if need be.")] = None,
    bootstrap: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A real Kafka to run on.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Show the whole service at work on this machine, with nothing but this package."""
    from service import demo as demonstration

    logs.configure(Log(level="warning"))
    options = demonstration.Options(scenario.value, data, documents, bootstrap)
    report = console.run_unless_interrupted(demonstration.demo(options, Steps(console.err())))
    if as_json:
        console.print_json(report)
    else:
        console.out().print(_demo_table(report))
    if report.lost or report.duplicates or report.committed != report.documents:
        raise typer.Exit(1)


@app.command()
def replay(  # noqa: PLR0917  options, which Typer reads by name
    config: Annotated[Path, typer.Option(help="The configuration that the stream is run with.")],
    stream: Annotated[str | None, typer.Option(help="Which stream of the configuration.")] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only letters of this reason; `other` are those without our headers.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE|TIME", help="Only letters since then: 2h, or ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="AGE|TIME", help="Only letters from before then.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send so many back at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent back.")] = False,
    as_json: console.AsJson = False,
) -> None:
    """Send dead letters back to the input; the next run goes on where this one ended, for the reasons asked for."""
    from service import replay as replaying

    logs.configure(Log(level="warning"))
    configured, now = settings.load(config), time.time()
    chosen = configured.stream(stream)
    wanted = replaying.Wanted(
        reasons=replaying.known(reason or ()),
        since=replaying.moment(since, now) if since is not None else None,
        until=replaying.moment(until, now) if until is not None else None,
        limit=limit,
        dry_run=dry_run,
    )
    with ExitStack() as stack:

        def progress(total: int) -> Advance:
            return stack.enter_context(
                Steps(console.err()).step(f"looking at the dead letters of {chosen.name}", total)
            )

        summary = console.run(
            lambda stop: replaying.replay(configured.kafka, chosen, wanted, stop=stop, progress=progress)
        )
    if as_json:
        console.print_json(summary)
    else:
        console.out().print(_replay_table(summary))
    if not summary.finished:
        raise typer.Exit(130)


@app.command()
def trial(
    urls: Annotated[
        list[str] | None,
        typer.Argument(metavar="[URL]...", help="Health ports of workers; http://127.0.0.1:9464 by default."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Say how a shadow or canary compares with what is there: agreement, differences, scores, latency, cost."""
    from service import trial_report

    reports = console.run_unless_interrupted(trial_report.asked(urls or ["http://127.0.0.1:9464"]))
    if as_json:
        console.print_json({"trials": reports})
        return
    for report in reports:
        console.out().print(_trial_table(report))


@app.command()
def baseline(
    results: Annotated[Path, typer.Argument(help="Results that are normal: JSON lines, as `classify` writes them.")],
    as_json: console.AsJson = False,
) -> None:
    """Tell the shares of classes in results, as a stream's `baseline`, from which drift is measured."""
    import yaml

    from service import baseline as baselines

    shares = baselines.read(results)
    if as_json:
        console.print_json({"baseline": shares})
        return
    sys.stdout.write(yaml.safe_dump({"baseline": shares}, sort_keys=False, allow_unicode=True))


@app.command()
def serve(  # noqa: PLR0917  options, which Typer reads by name
    data: Annotated[Path, typer.Option(help="The folder that everything is kept in: state, jobs, models.")],
    model: Annotated[
        list[str] | None, typer.Option(metavar="PROJECT/DEPLOYMENT=FOLDER", help="Deploy this trained model.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="LABELSTREAM_SERVE_KEY", help="A key that clients may use; better given in the environment."
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate file (PEM); needed beyond loopback.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key file.")] = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Serve beyond loopback without TLS.")] = False,
    public_url: Annotated[str | None, typer.Option(help="Where clients reach the server, if behind a proxy.")] = None,
    container: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER|URL",
            envvar="LABELSTREAM_SERVE_CONTAINER",
            help="A storage container to read training data from: a folder, or an Azure container with its signature.",
        ),
    ] = None,
    aws_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID:SECRET",
            envvar="LABELSTREAM_SERVE_AWS_KEY",
            help="A key that requests to Amazon Comprehend may be signed with; better given in the environment.",
        ),
    ] = None,
    comprehend_endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Put this trained model behind an endpoint of Amazon Comprehend; with FOLDER:UNITS it throttles.",
        ),
    ] = None,
    comprehend_quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="How many endpoints, units-per-endpoint, units, trainings or jobs of Amazon Comprehend may be there "
            "at once, if not 20, 50, 200, 10 and 10.",
        ),
    ] = None,
    s3_endpoint_url: Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.")] = None,
    harm_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CATEGORY=FOLDER",
            help="The trained model that answers for Content Safety's Hate, SelfHarm, Sexual or Violence; without one "
            "the severity is always 0.",
        ),
    ] = None,
    largest_sample_file: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="The largest sample file of a Content Safety category.")
    ] = MOST_BYTES,
    by_meaning: Annotated[
        bool,
        typer.Option(
            "--embeddings",
            help="Learn Content Safety's categories by what texts mean, too, which is better by far without negatives. "
            "Takes the extra `embeddings`; building a category then takes some seconds more.",
        ),
    ] = False,
    documented_rates: Annotated[
        bool, typer.Option("--documented-rates", help="Throttle each API as its cloud documents it.")
    ] = False,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Throttle at a rate of one's own.")] = None,
    least_job_seconds: Annotated[float, typer.Option(min=0, help="No job is done sooner, as in the cloud.")] = 0.0,
    faults: Annotated[Path | None, typer.Option(help="Rules of what should go wrong (YAML), for tests.")] = None,
    allow_faults: Annotated[bool, typer.Option("--allow-faults", help="Take such rules at /_faults, too.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much is logged.")] = LogLevel.INFO,
) -> None:
    """Answer as the clouds' classifiers do, from models trained here."""
    from service.server import app as serving

    logs.configure(Log(level=log_level.value))
    options = serving.ServeOptions(
        data=data,
        host=host,
        port=port,
        keys=tuple(key or ()),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        plaintext=plaintext,
        public_url=public_url,
        models=tuple(serving.Registration.parse(each) for each in model or ()),
        containers=tuple(container or ()),
        aws_keys=tuple(aws_key or ()),
        comprehend_endpoints=tuple(serving.Endpoint.parse(each) for each in comprehend_endpoint or ()),
        comprehend_quotas=tuple(comprehend_quota or ()),
        s3_endpoint_url=s3_endpoint_url,
        harm_models=tuple(harm_model or ()),
        largest_sample_file=largest_sample_file,
        by_meaning=by_meaning,
        documented_rates=documented_rates,
        requests_per_minute=requests_per_minute,
        least_job_seconds=least_job_seconds,
        faults=faults,
        allow_faults=allow_faults,
    )

    async def serve_until(stop: asyncio.Event) -> None:
        async with serving.serving(options) as url:
            sys.stdout.write(f"serving on {url}\n")
            sys.stdout.flush()
            await stop.wait()

    console.run(serve_until)


@app.command()
def bench(
    scenario: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO…",
            help="`ceiling`, `memory`; or scenarios by name (`knee`, `outage` …; `all`), or files of your own.",
        ),
    ] = None,
    bootstrap: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A real Kafka to measure on.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure the pipeline beside its goals: what it costs (about a minute), or how it fares in scenarios.

    `ceiling` is the most that one worker does, and two of a group; `memory` is what one holds of large documents that
    nobody answers. A scenario is played in real time against an endpoint that behaves as its file says. All of it
    wants a machine at rest.
    """
    logs.configure(Log(level="warning"))
    if scenario in (["ceiling"], ["memory"]):
        _extreme(scenario[0], bootstrap, as_json=as_json)
        return
    if scenario:
        if bootstrap is not None:
            raise typer.BadParameter("scenarios are played without Kafka: leave --bootstrap out")
        _play(scenario, as_json=as_json)
        return
    from service.bench import load as benchmark

    report = benchmark.measure(bootstrap, Steps(console.err()))
    if as_json:
        console.print_json({**asdict(report), "figures": report.figures()})
    else:
        console.out().print(_bench_table(report))


def _extreme(name: str, bootstrap: str | None, *, as_json: bool) -> None:
    """Measure what a worker does at most, or holds."""
    from service.bench import ceiling, memory

    measure = ceiling.measure if name == "ceiling" else memory.measure
    figures = measure(bootstrap, Steps(console.err()))
    if as_json:
        console.print_json({"measured": name, "figures": figures})
    else:
        console.out().print(_figures_table(name, figures))


def _play(names: list[str], *, as_json: bool) -> None:
    """Play scenarios one after the other, and show what came of them."""
    from service.simulation import http, scenario

    paths = [
        path for name in names for path in (scenario.shipped().values() if name == "all" else [scenario.found(name)])
    ]
    wanted, steps = {path.stem: scenario.load(path) for path in paths}, Steps(console.err())
    figures: dict[str, list[playing.Figure]] = {}
    for name, each in wanted.items():
        with steps.step(f"{name}: {each.lasts:.0f} s", each.lasts) as advance:
            figures[name] = console.run_unless_interrupted(http.play_over_http(each, advance))
    if as_json:
        console.print_json(
            [
                {
                    "scenario": name,
                    "about": wanted[name].about,
                    "figures": [{**asdict(one), "met": one.met} for one in each],
                }
                for name, each in figures.items()
            ]
        )
    else:
        console.out().print(_scenarios_table(figures))


def main() -> None:
    """The `labelstream` command."""
    logs.configure(Log(level="warning"))  # before anything can fail: by default a traceback shows variables
    try:
        app()
    except BaseException as error:  # noqa: BLE001  the outermost edge
        sys.exit(_ended(error))


def _ended(error: BaseException) -> int:
    """Say what ended the command, in words where we have them; gives the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    causes = list(_leaves(error))
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return 130
    known = [cause for cause in causes if isinstance(cause, (*_WRONG_INPUT, CallFailed))]
    if len(known) < len([cause for cause in causes if not isinstance(cause, asyncio.CancelledError)]):
        structlog.get_logger("service").critical("failed", exc_info=error)
        return 1
    for said in dict.fromkeys(str(cause) for cause in known):
        console.err().print(f"[red]labelstream:[/] {escape(said)}", highlight=False, soft_wrap=True)
    return 2 if any(isinstance(cause, _WRONG_INPUT) for cause in known) else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _demo_table(report: "demonstration.Report") -> Table:
    table = Table(title=f"labelstream demo on {report.broker}", show_header=False, title_justify="left")
    table.add_row("documents", f"{report.documents:,}")
    table.add_row("classified", f"{report.classified:,}")
    table.add_row("dead letters", f"{report.dead_letters:,}")
    table.add_row("lost", f"{report.lost:,}")
    table.add_row("duplicates", f"{report.duplicates:,}")
    table.add_row("committed offsets", f"{report.committed:,} of {report.documents:,} produced")
    table.add_row("accuracy", f"{report.accuracy:.1%}")
    table.add_row("throughput", f"{report.throughput_docs_per_s:,.0f} documents/s")
    table.add_row("latency", f"{report.latency_ms['p50']:.0f} ms median, {report.latency_ms['p99']:.0f} ms p99")
    table.add_section()
    for name, count in list(report.classes.items())[:10]:
        table.add_row(name, f"{count:,}")
    if report.copies:
        table.add_section()
    for topic, count in report.copies.items():
        table.add_row(f"to {topic}", f"{count:,}")
    return table


def _trial_table(report: "trials.Report") -> Table:
    compared = report.became.get("agreed", 0) + report.became.get("differed", 0)
    table = Table(title=f"{report.trial} of {report.topic}", show_header=False, title_justify="left")
    table.add_row("compared", f"{compared:,}")
    for what in ("refused", "dropped"):
        table.add_row(f"  {what}", f"{report.became.get(what, 0):,}")
    table.add_row("the same best class", f"{report.agreement:.1%}")
    table.add_row("surer by more than 0.05; less sure", f"{report.surer:.1%}; {report.less_sure:.1%}")
    sides = report.present, report.candidate
    table.add_row("mean seconds, present → candidate", " → ".join(f"{side.seconds:.3f}" for side in sides))
    table.add_row("cost, present → candidate", " → ".join(f"{side.cost:g}" for side in sides))
    table.add_section()
    for present, candidate, count in report.differences[:_MOST_SHOWN]:
        table.add_row(escape(f"{present or '(none)'} → {candidate or '(none)'}"), f"{count:,}")
    return table


def _replay_table(summary: "replaying.Summary") -> Table:
    table = Table(title=f"dead letters of {summary.stream}", show_header=False, title_justify="left")
    table.add_row("would be sent back" if summary.dry_run else "sent back", f"{summary.sent:,}")
    for reason, count in sorted(summary.reasons.items()):
        table.add_row(f"  {reason}", f"{count:,}")
    table.add_section()
    left = {
        "not asked for": summary.not_asked_for,
        "sent back max_redrives times before": summary.at_the_cap,
        "not whole (too large for the dead-letter topic)": summary.not_whole,
        "too large for the input": summary.too_large,
        "of other streams": summary.of_other_streams,
    }
    for why, count in left.items():
        if count:
            table.add_row(f"left: {why}", f"{count:,}")
    return table


def _bench_table(report: "benchmark.Report") -> Table:
    title = (
        f"{report.docs_per_s:,.0f} documents/s of an ideal {report.ideal_docs_per_s:,.0f}: {report.in_flight} requests"
        f" of {report.batch} documents in flight, each {report.endpoint_ms:.0f} ms; {report.broker}"
    )
    table = _figures_table(title, report.figures())
    table.add_row(
        "CPU a document of a bare loop of the same calls", f"{report.bare_loop_cpu_us_per_document:g} µs", "", ""
    )
    table.add_row("added latency at half load, median", f"{report.added_latency_ms['p50']:g} ms", "", "")
    table.add_row("peak memory", f"{report.peak_memory_mb:g} MB", "", "")
    return table


def _figures_table(title: str, figures: "Sequence[Figure]") -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("figure", "measured", "goal", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    verdicts = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for figure in figures:
        goal = f"{figure.goal} {figure.unit}" if figure.goal else ""
        table.add_row(figure.name, f"{figure.measured:,g} {figure.unit}", goal, verdicts[figure.met])
    return table


def _scenarios_table(figures: "Mapping[str, list[playing.Figure]]") -> Table:
    table = Table()
    for column in ("scenario", "measured", "goal", ""):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for name, each in figures.items():
        table.add_row(f"[bold]{escape(name)}[/]")
        for one in each:
            verdict = "[green]met[/]" if one.met else "[red]missed[/]"
            table.add_row(escape(one.words), f"{one.measured:.4g}", str(one.goal), verdict)
        table.add_section()
    return table


_WRONG_INPUT = (Misconfigured, ModelError, ExamplesError)
