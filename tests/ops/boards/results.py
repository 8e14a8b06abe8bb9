"""The board of the data team: what the answers are, whether they change, what is refused."""

from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.ops.boards.drawing import (
    POD,
    RATE,
    STREAM,
    TOPIC,
    Limit,
    Query,
    Row,
    alerting,
    board,
    heat,
    lines,
    mean,
    on_right_axis,
    per_second,
    quantiles,
    rows_of,
    stacked,
    stat_of,
)

SHARE = f"namespace_job_topic_label:labelstream_labels:share1h{{{STREAM}}}"

UNSURE = f"namespace_job_topic:labelstream_confidence:unsure1h{{{STREAM}}}"


def draw() -> Dashboard:
    """The board."""
    return board(
        "Results",
        "What documents are classified as, how sure the classifiers are, whether that changes, and what is refused.",
        [
            Row("Have the answers changed?", [_drift(), _drift_over_time(), _shares_then()]),
            Row("Are they what is normal, and as sure?", [_off_the_baseline(), _drift_of_scores()]),
            Row("What are the answers?", _answers()),
            Row("How sure are they?", _confidence()),
            Row("Have the texts changed?", _texts()),
            Row("What is refused?", _refused()),
            Row("What is published, and at what cost?", _published()),
            Row("What is not asked for?", _spared()),
            Row("What is taken out of texts?", [_redacted()]),
            Row("Who is asked, where several are?", _lanes()),
            Row("How does the classifier on trial do?", _trials()),
            Row("Do people agree?", _reviews()),
        ],
        by=["topic"],
    )


def _drift() -> object:
    return stat_of(
        "Drift since yesterday",
        "Population stability index of the classes: the last hour against the same hour yesterday. Below 0.1 is "
        "calm, above "
        "0.25 is commonly called a shift. Alert: LabelstreamClassesDrift, after an hour of it.",
        "none",
        Query(f"max by (topic) (namespace_job_topic:labelstream_labels:psi1d{{{STREAM}}})", "{{topic}}"),
        limit=alerting("LabelstreamClassesDrift"),
        decimals=2,
    )


def _texts() -> list[object]:
    return [
        lines(
            "Length of texts",
            "Mean characters of a document, and half and nearly all of them. Twice yesterday's, or half: alert "
            "LabelstreamTextsDrift.",
            "short",
            mean("labelstream_record_characters", TOPIC, "mean"),
            *quantiles("labelstream_record_characters", TOPIC, 0.5, 0.95),
        ),
        stacked(
            "Languages",
            "Documents by the language that their records name. A share that moves by a fifth: alert "
            "LabelstreamLanguagesDrift.",
            "suffix:/s",
            per_second("labelstream_record_languages_total", TOPIC, "language"),
        ),
    ]


def _drift_over_time() -> object:
    return lines(
        "Drift since yesterday, over time",
        "The same, over time. A step: a new model, or a new kind of document. A wave: weekends and holidays.",
        "none",
        Query(f"max by (topic) (namespace_job_topic:labelstream_labels:psi1d{{{STREAM}}})", "{{topic}}"),
        limit=alerting("LabelstreamClassesDrift"),
    )


def _off_the_baseline() -> object:
    return lines(
        "Off the baseline",
        "Population stability index of the classes against the stream's `baseline`, where it has one. Alert: "
        "LabelstreamClassesUnexpected, after an hour of it.",
        "none",
        Query(f"max by (topic) (namespace_job_topic:labelstream_labels:psi_expected1h{{{STREAM}}})", "{{topic}}"),
        limit=alerting("LabelstreamClassesUnexpected"),
    )


def _drift_of_scores() -> object:
    return lines(
        "Drift of scores since yesterday",
        "Population stability index of the best class's scores, in five bands. Alert: LabelstreamScoresDrift, after an "
        "hour of it.",
        "none",
        Query(f"max by (topic) (namespace_job_topic:labelstream_confidence:psi1d{{{STREAM}}})", "{{topic}}"),
        limit=alerting("LabelstreamScoresDrift"),
    )


def _shares_then() -> object:
    plain = Limit(0, "text")
    share = "sum by (topic, label) ({})"
    return rows_of(
        "Shares, now and then",
        "Each class's share of the last hour, of the baseline where there is one, yesterday and a week ago.",
        {
            "Now": (share.format(SHARE), "percentunit", plain),
            "Expected": (
                share.format(f"labelstream_baseline_share{{{TOPIC}}}").replace("sum", "max"),
                "percentunit",
                plain,
            ),
            "Yesterday": (share.format(f"{SHARE} offset 1d"), "percentunit", plain),
            "A week ago": (share.format(f"{SHARE} offset 7d"), "percentunit", plain),
        },
        sort="Now",
    )


def _answers() -> list[object]:
    return [
        stacked(
            "Classes, as shares",
            "Results by their best class. Classes beyond the first fifty of a topic are `other`.",
            "suffix:/s",
            per_second("labelstream_labels_total", TOPIC, "label"),
            mode=StackingMode.PERCENT,
        ),
        lines(
            "Classes, a second",
            "The same, as counts. One class alone rises: something has happened.",
            "suffix:/s",
            per_second("labelstream_labels_total", TOPIC, "label"),
        ),
    ]


def _confidence() -> list[object]:
    return [
        heat(
            "Scores of the best class",
            "How many results have which score. Classifiers without scores are not in it.",
            "percentunit",
            f"sum by (le) (increase(labelstream_confidence_bucket{{{TOPIC}}}[{RATE}]))",
        ),
        lines(
            "Unsure answers",
            "Share of the results whose best class scores at most 0.6, by topic: what people would have to look at.",
            "percentunit",
            Query(
                f'sum by (topic) (rate(labelstream_confidence_bucket{{{TOPIC}, le="0.6"}}[{RATE}]))'
                f" / sum by (topic) (rate(labelstream_confidence_count{{{TOPIC}}}[{RATE}]))",
                "{{topic}}",
            ),
        ),
        lines(
            "Unsure, beyond yesterday",
            "How much larger that share is than in the same hour yesterday. "
            "Alert: LabelstreamUnsure, after an hour of it.",
            "percentunit",
            Query(f"max by (topic) ({UNSURE} - {UNSURE} offset 1d)", "{{topic}}"),
            limit=alerting("LabelstreamUnsure"),
        ),
        lines(
            "Mean score",
            "Falls when documents are of a kind that the model has not learnt.",
            "percentunit",
            mean("labelstream_confidence", TOPIC, "mean"),
        ),
    ]


def _refused() -> list[object]:
    return [
        stacked(
            "Dead letters, by reason",
            "undecodable, missing_text: a producer has changed its records. too_long: see max_characters. "
            "refused_by_classifier: see the letters' headers. They go back with `labelstream replay`.",
            "suffix:/s",
            per_second("labelstream_dead_letters_total", TOPIC, "reason"),
        ),
        lines(
            "Dead letters, as a share",
            "Of the last half hour. Alert: LabelstreamDeadLetters; for less, but longer, "
            "LabelstreamDeliveryBudgetBurns.",
            "percentunit",
            Query(
                f"sum by (topic) (rate(labelstream_dead_letters_total{{{TOPIC}}}[30m]))"
                f" / sum by (topic) (rate(labelstream_records_finished_total{{{TOPIC}}}[30m]))",
                "{{topic}}",
            ),
            limit=alerting("LabelstreamDeadLetters"),
        ),
    ]


def _published() -> list[object]:
    return [
        stacked(
            "Messages published, by topic",
            "Results, routed copies and dead letters that the broker has acknowledged.",
            "suffix:/s",
            per_second("labelstream_messages_produced_total", POD, "topic"),
        ),
        lines(
            "Messages not taken",
            "By the kind of failure. Publishing is tried again; nothing is committed meanwhile.",
            "suffix:/s",
            Query(
                f"sum by (error_type) (rate(labelstream_produce_errors_total{{{POD}}}[{RATE}])) or vector(0)",
                "{{error_type}}",
            ),
        ),
        lines(
            "Cost of a thousand records",
            "Estimated, from what answers were billed for by the unit, in the currency of the accounts' prices.",
            "none",
            Query(
                f"1000 * sum by (topic) (rate(labelstream_cost_total{{{TOPIC}}}[{RATE}]))"
                f" / sum by (topic) (rate(labelstream_records_finished_total{{{TOPIC}}}[{RATE}]))",
                "{{topic}}",
            ),
        ),
        lines(
            "Units a record",
            "Billed units over records classified, of all topics: longer documents cost more.",
            "none",
            Query(
                f"sum(rate(labelstream_provider_text_units_total{{{POD}}}[{RATE}]))"
                f' / sum(rate(labelstream_records_finished_total{{{POD}, outcome="classified"}}[{RATE}]))',
                "units",
            ),
        ),
    ]


def _redacted() -> object:
    return stacked(
        "Replaced in texts, by kind",
        "Personal data that was replaced before texts left for a classifier. Only with streams that are set to do so; "
        "none any more, where there was some, is a form that has changed.",
        "suffix:/s",
        per_second("labelstream_redacted_total", TOPIC, "kind"),
    )


def _trials() -> list[object]:
    by = "sum by (classifier) (rate(labelstream_trial_{}{{{}}}[{}]))"
    seconds = by.format("seconds_sum", TOPIC, RATE), by.format("seconds_count", TOPIC, RATE)
    then = f"namespace_job_topic:labelstream_trial_records:agreement6h{{{STREAM}}}"
    return [
        stacked(
            "Agreement",
            "Records of a shadow or canary: both give the same best class (agreed) or not (differed), one refused, or "
            "the one beside was not asked, as it does not keep up (dropped). Only with streams that have one.",
            "suffix:/s",
            per_second("labelstream_trial_records_total", TOPIC, "became"),
            mode=StackingMode.PERCENT,
        ),
        lines(
            "Agreement lost since yesterday",
            "How much smaller the share of records on which both agree is, of six hours, than a day ago. Alert: "
            "LabelstreamTrialDisagrees, after an hour of it, if chance does not explain it.",
            "percentunit",
            Query(f"max by (topic) ({then} offset 1d - {then})", "{{topic}}"),
            limit=alerting("LabelstreamTrialDisagrees"),
        ),
        rows_of(
            "Where they differ",
            "The best class of the present classifier and of the candidate, in the last hour; beyond a hundred pairs: "
            "other.",
            {
                "Records": (
                    f"sum by (present, candidate) (increase(labelstream_trial_differences_total{{{TOPIC}}}[1h]))",
                    "short",
                    Limit(0, "text"),
                )
            },
            sort="Records",
        ),
        heat(
            "Surer, or less sure",
            "How much higher the candidate's best score is; to the left of 0 it is less sure.",
            "short",
            f"sum by (le) (increase(labelstream_trial_score_shift_bucket{{{TOPIC}}}[{RATE}]))",
        ),
        lines(
            "Seconds to an answer",
            "Mean, from having a record to ask for to its answer, of both.",
            "s",
            Query(f"{seconds[0]} / {seconds[1]}", "{{classifier}}"),
        ),
        lines(
            "Cost of the same records an hour",
            "Estimated: what records that were compared were billed for by the unit, at both.",
            "none",
            Query(f"{by.format('cost_total', TOPIC, RATE)} * 3600", "{{classifier}}"),
        ),
    ]


def _lanes() -> list[object]:
    return [
        stacked(
            "Answers, by lane",
            "Records answered in each lane of streams that have several: the first, one for a language, one that is "
            "merged, and the one for what is unsure.",
            "suffix:/s",
            per_second("labelstream_lane_records_total", TOPIC, "lane"),
        ),
        lines(
            "Unsure, as a share",
            "Of the records, how many go on from the first stage into the dear one. It rises: documents are of a kind "
            "that the cheap model has not learnt, and so does the bill.",
            "percentunit",
            Query(
                f'sum by (topic) (rate(labelstream_lane_records_total{{{TOPIC}, lane="unsure"}}[{RATE}]))'
                f" / sum by (topic) (rate(labelstream_records_finished_total{{{TOPIC}}}[{RATE}]))",
                "{{topic}}",
            ),
        ),
        lines(
            "Left at the first answer",
            "Records that were unsure and are published all the same, as the accounts for these could not be asked: "
            "they are down, or the money is spent.",
            "suffix:/s",
            Query(
                f'sum by (topic) (rate(labelstream_lane_records_total{{{TOPIC}, became="first_answer"}}[{RATE}]))'
                " or vector(0)",
                "{{topic}}",
            ),
        ),
    ]


def _reviews() -> list[object]:
    agreed, decided, *of_a_day = (
        f'sum by (topic, label) (labelstream_review_decisions{when}{{{STREAM}, became=~"{became}"}})'
        for when in ("", "_of_a_day")
        for became in ("agreed", "agreed|corrected")
    )
    return [
        lines(
            "Agreement, by class",
            "Share of people's decisions that are what the classifier said, by its best class. Only with `review`, and "
            "`labelstream reviews watch` running. It falls for a class: look at what was corrected, and train with it.",
            "percentunit",
            Query(f"({agreed} or 0 * {decided}) / ({decided} > 0)", "{{topic}} {{label}}"),
        ),
        lines(
            "Agreement lost, in a day",
            "How much smaller the share of decisions that agree is, of the last day, than of all before it. Alert: "
            "LabelstreamPeopleDisagree, after an hour of it, if chance does not explain it.",
            "percentunit",
            Query(
                "max by (topic) ("
                f"namespace_job_topic:labelstream_review_decisions:agreement_before1d{{{STREAM}}}"
                f" - namespace_job_topic:labelstream_review_decisions:agreement1d{{{STREAM}}})",
                "{{topic}}",
            ),
            limit=alerting("LabelstreamPeopleDisagree"),
        ),
        rows_of(
            "Agreement, of a day and in all",
            "By the classifier's best class, with the number of the last day's decisions.",
            {
                "Last day": (f"({of_a_day[0]}) / ({of_a_day[1]} > 0)", "percentunit", Limit(0, "text")),
                "In all": (f"({agreed} or 0 * {decided}) / ({decided} > 0)", "percentunit", Limit(0, "text")),
                "Decisions": (of_a_day[1], "short", Limit(0, "text")),
            },
            sort="Decisions",
        ),
        lines(
            "Decisions, by what they became",
            "late: after `review.within`. replaced: decided anew. unknown: nobody was asked that. malformed: not the "
            "form, or a class that is not on offer.",
            "short",
            Query(f"sum by (became) (labelstream_review_decisions{{{STREAM}}})", "{{became}}"),
        ),
    ]


def _spared() -> list[object]:
    return [
        stacked(
            "Records spared, by where their answer is from",
            "Records that were not asked for, as an identical one was just asked for, or its answer was kept. Only "
            "with "
            "streams that are set to do so.",
            "suffix:/s",
            per_second("labelstream_records_spared_total", TOPIC, "answered_from"),
        ),
        lines(
            "Cost saved an hour",
            "Estimated: what these would have been billed for by the unit, in the currency of the accounts' prices.",
            "none",
            Query(f"sum by (topic) (rate(labelstream_cost_saved_total{{{TOPIC}}}[{RATE}])) * 3600", "{{topic}}"),
        ),
        on_right_axis(
            lines(
                "Answers kept",
                "Answers that are kept for identical records, and the memory that they take at most, of all workers.",
                "short",
                Query(f"sum(labelstream_answers_kept{{{TOPIC}}})", "answers"),
                Query(f"sum(labelstream_answers_kept_bytes{{{TOPIC}}})", "memory"),
            ),
            "/memory/",
            "bytes",
        ),
    ]
