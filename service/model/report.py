"""What a model is worth, to look at: a page, pictures and tables in a folder.

The same answers are the same bytes, whatever the machine's settings for pictures are. No document's text is in them
unless it is asked for. Pictures take matplotlib, the extra `report`.
"""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import Misconfigured
from service.model import archive
from service.model.evaluate import Answers, Evaluation, bins, indicators

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CONFUSED = 25
_CURVES = 8
_MISTAKES = 50
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .75rem;border-bottom:1px solid #ddd;"
    "text-align:left;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    "img{max-width:100%}figcaption{color:#555}figure{margin:1.5rem 0}"
)


class Mistake(NamedTuple):
    """A wrong answer; `score` is how sure the model was of it."""

    id: str
    text: str
    true: tuple[str, ...]
    answered: tuple[str, ...]
    score: float


def write(folder: Path, name: str, answers: Answers, worth: Evaluation, *, texts: Sequence[str] = ()) -> Path:
    """Write the report into a folder, made if missing, and give its page's path.

    `texts` are the texts of the answered rows, where they may be shown beside mistakes. Raises Misconfigured where
    matplotlib is not installed or the folder cannot be written.
    """
    drawings = _drawings(answers, worth)
    mistakes = list(_mistakes(answers, texts))[:_MISTAKES]
    files = {f"{title}.png": _png(figure) for title, figure in drawings.items()}
    files["classes.csv"] = _csv(_class_table(worth))
    if worth.confusion:
        files["confusion.csv"] = _csv(_confusion_table(worth))
    files["index.html"] = _page(name, worth, list(drawings), mistakes, shown=bool(texts)).encode("utf-8", "replace")
    try:
        for file, content in files.items():
            archive.write(folder / file, content)
    except OSError as error:
        raise Misconfigured(f"--report {folder}: cannot be written: {error.strerror}") from None
    return folder / "index.html"


def most_confused(worth: Evaluation) -> list[str]:
    """The classes that are most often taken for another or another for them, at most 25, by name."""
    counts: Counter[str] = Counter()
    for (true, answered), documents in worth.confusion.items():
        if true != answered:
            counts.update({true: documents, answered: documents})
    every = sorted({label for pair in worth.confusion for label in pair})
    if len(every) <= MOST_CONFUSED:
        return every
    return sorted(sorted(every, key=lambda label: (-counts[label], label))[:MOST_CONFUSED])


def _mistakes(answers: Answers, texts: Sequence[str]) -> Iterable[Mistake]:
    """The wrong answers, the surest first; of several labels, by the score that is furthest from the truth."""
    names = list(answers.labels)
    if answers.task == "single_label":
        sure, given = answers.scores.max(axis=1), answers.scores.argmax(axis=1)
        answered = [(names[column],) for column in given]
    else:
        true = indicators([[label for label in row if label in names] for row in answers.truth], names)
        sure = np.where(true, 1 - answers.scores, answers.scores).max(axis=1)
        answered = [tuple(np.array(names)[row >= answers.threshold].tolist()) for row in answers.scores]
    for number in np.argsort(-sure, kind="stable").tolist():
        if set(answered[number]) != set(answers.truth[number]):
            text = texts[number] if texts else ""
            yield Mistake(answers.ids[number], text, tuple(answers.truth[number]), answered[number], sure[number])


# Tables -------------------------------------------------------------------------------------------


def _class_table(worth: Evaluation) -> Iterable[Sequence[object]]:
    yield "class", "documents", "precision", "recall", "f1"
    for one in worth.classes:
        yield one.name, one.support, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}"


def _confusion_table(worth: Evaluation) -> Iterable[Sequence[object]]:
    labels = sorted({label for pair in worth.confusion for label in pair})
    yield "true \\ answered", *labels
    for true in labels:
        yield true, *(worth.confusion.get((true, answered), 0) for answered in labels)


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([_inert(cell) for cell in row] for row in rows)
    return file.getvalue().encode("utf-8", "replace")


def _inert(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t")) else cell


# Pictures -----------------------------------------------------------------------------------------


def _drawings(answers: Answers, worth: Evaluation) -> dict[str, "Figure"]:
    try:
        import matplotlib as mpl  # noqa: PLC0415  an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise Misconfigured(
            "--report draws with matplotlib, which is not installed: pip install 'labelstream[report]'"
        ) from None

    drawings: dict[str, Figure] = {}
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font knows few scripts; tables have the names
        if worth.confusion:
            drawings["confusion"] = Figure(figsize=(9, 8), layout="constrained")
            _draw_confusion(drawings["confusion"], worth)
        drawings["precision_recall"] = Figure(figsize=(8, 6), layout="constrained")
        _draw_precision_recall(drawings["precision_recall"].add_subplot(), answers)
        if worth.ece is not None:
            drawings["reliability"] = Figure(figsize=(7, 6), layout="constrained")
            _draw_reliability(drawings["reliability"], answers)
        return drawings


def _png(figure: "Figure") -> bytes:
    import matplotlib as mpl  # noqa: PLC0415  an extra

    file = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _draw_confusion(figure: "Figure", worth: Evaluation) -> None:
    labels = most_confused(worth)
    totals = {one.name: one.support for one in worth.classes}
    counts = np.array([[worth.confusion.get((true, answered), 0) for answered in labels] for true in labels], float)
    shares = counts / np.array([max(totals.get(label, 0), 1) for label in labels])[:, None]
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0).tolist():
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    short = [label if len(label) <= 28 else f"{label[:27]}…" for label in labels]
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(len(labels)), short, rotation=rotation, fontsize=8, parse_math=False)
    axes.set(xlabel="answered", ylabel="true")
    figure.colorbar(drawn, label="share of the true class's documents", shrink=0.7)


def _draw_precision_recall(axes: "Axes", answers: Answers) -> None:
    names = list(answers.labels)
    true = indicators([[label for label in row if label in names] for row in answers.truth], names)
    occurring = np.flatnonzero(true.any(axis=0)).tolist()
    curves = {column: precision_recall(answers.scores[:, column], true[:, column]) for column in occurring}
    worst = sorted(occurring, key=lambda column: (curves[column][2], names[column]))[:_CURVES]
    for column in occurring:
        precision, recall, area = curves[column]
        style = (
            {"label": f"{names[column][:28]} ({area:.2f})", "lw": 1.2} if column in worst else {"c": "0.85", "lw": 0.6}
        )
        (line,) = axes.plot(recall, precision, zorder=2 if column in worst else 1, **style)  # type: ignore[arg-type]
        line.set_drawstyle("steps-post")
    precision, recall, area = precision_recall(answers.scores.ravel(), true.ravel())
    axes.plot(recall, precision, c="black", lw=2.2, zorder=3, label=f"all classes ({area:.2f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    for told in axes.legend(fontsize=8, loc="lower left", title="average precision").get_texts():
        told.set_parse_math(False)


def precision_recall(
    scores: NDArray[np.float64], true: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Precision and recall at every threshold, the highest first, and the average precision."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # equal scores are answered together
    found = np.cumsum(true[order])[last]
    precision, recall = found / (last + 1), found / max(true.sum(), 1)
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return np.concatenate([[1.0], precision]), np.concatenate([[0.0], recall]), area


def _draw_reliability(figure: "Figure", answers: Answers) -> None:
    scores, right = answers.judged()
    count, score, share = bins(scores, right)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    known = count > 0
    top.plot([0, 1], [0, 1], c="0.6", ls="--", lw=1)
    top.plot(score[known], share[known], marker="o", lw=1.5)
    top.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    edges = np.linspace(0, 1, len(count) + 1)
    below.bar(edges[:-1], count, width=np.diff(edges), align="edge", edgecolor="white")
    below.set(xlabel="score", ylabel="answers", yscale="log" if answers.task == "multi_label" else "linear")


# The page -----------------------------------------------------------------------------------------

_CAPTIONS = {
    "confusion": "What is taken for what; a row is a true class, its numbers count documents.",
    "precision_recall": "Precision against recall: all classes together, the hardest ones, and the others in grey.",
    "reliability": "Whether scores mean what they say: on the dashed line, .8 is right 80 % of the time.",
}


def _page(name: str, worth: Evaluation, drawings: Sequence[str], mistakes: Sequence[Mistake], *, shown: bool) -> str:
    figures = [
        ("documents", f"{worth.documents:,}"),
        ("accuracy", f"{worth.accuracy:.4f}"),
        ("micro-F1", f"{worth.f1_micro:.4f}"),
        ("macro-F1", f"{worth.f1_macro:.4f}"),
        ("calibration error", "–" if worth.ece is None else f"{worth.ece:.4f}"),
    ]
    parts = [
        f"<h1>{escape(name)}</h1>",
        _table([title for title, _ in figures], [[told for _, told in figures]], numbers=range(5)),
        *(
            f'<figure><img src="{title}.png" alt="{escape(_CAPTIONS[title])}"><figcaption>{_caption(title, worth)}'
            "</figcaption></figure>"
            for title in drawings
        ),
        "<h2>Classes</h2>",
        _table(*_headed(_class_table(worth)), numbers=range(1, 5)),
        "<h2>The surest mistakes</h2>",
        _mistake_table(mistakes, shown=shown),
    ]
    title = escape(name)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _caption(title: str, worth: Evaluation) -> str:
    if title != "confusion":
        return escape(_CAPTIONS[title])
    every = len({label for pair in worth.confusion for label in pair})
    some = f" Of {every} classes the {MOST_CONFUSED} most confused." if every > MOST_CONFUSED else ""
    return f'{escape(_CAPTIONS[title])}{some} The whole table: <a href="confusion.csv">confusion.csv</a>.'


def _mistake_table(mistakes: Sequence[Mistake], *, shown: bool) -> str:
    head = ["score", "document", "true", "answered", *(["text"] if shown else [])]
    rows = [
        [f"{one.score:.3f}", one.id, ", ".join(one.true), ", ".join(one.answered), *([one.text] if shown else [])]
        for one in mistakes
    ]
    return _table(head, rows, numbers=range(1))


def _headed(rows: Iterable[Sequence[object]]) -> tuple[Sequence[object], list[Sequence[object]]]:
    head, *body = rows
    return head, body


def _table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: range) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        classes = [' class="n"' if number in numbers else "" for number in range(len(cells))]
        told = (f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for cell, kind in zip(cells, classes, strict=True))
        return f"<tr>{''.join(told)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
