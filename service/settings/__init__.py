"""The settings: one frozen tree, read from a YAML file and `LABELSTREAM_…__…` environment variables.

A part of the service receives its own branch, never the root. Unknown keys are errors that name the nearest known one;
durations are written `200ms`, `30s`, `5m` or `1h`, sizes `512KiB`, `64MiB`, plain numbers are seconds and bytes.
"""

from service.settings.accounts import Account, Local, has_jobs
from service.settings.amazon import Aws, ClassifierArn, Comprehend, ComprehendJobs, EndpointArn, RoleArn, S3Folder
from service.settings.azure import Azure, AzureLanguage, ContentSafety, ContentUnderstanding, HarmCategory
from service.settings.kafka import Kafka
from service.settings.lanes import Trial, Unsure
from service.settings.limits import Breaker, Hedge, Limits, Price
from service.settings.reading import load, misconfigured, parse, tree
from service.settings.redis import Redis
from service.settings.registry import Registry
from service.settings.review import Review
from service.settings.routes import Condition, Route
from service.settings.streams import Batch, Capacity, DeadLetterLimit, Fields, Identical, Redact, Results, Stream
from service.settings.tracing import Tracing
from service.settings.training import CategoryTraining, LanguageTraining, TrainingData
from service.settings.tree import Health, Log, Settings
from service.settings.values import Branch, Bytes, Pointer, Seconds, Share, Topic, Whole, is_loopback

__all__ = [
    "Account",
    "Aws",
    "Azure",
    "AzureLanguage",
    "Batch",
    "Branch",
    "Breaker",
    "Bytes",
    "Capacity",
    "CategoryTraining",
    "ClassifierArn",
    "Comprehend",
    "ComprehendJobs",
    "Condition",
    "ContentSafety",
    "ContentUnderstanding",
    "DeadLetterLimit",
    "EndpointArn",
    "Fields",
    "HarmCategory",
    "Health",
    "Hedge",
    "Identical",
    "Kafka",
    "LanguageTraining",
    "Limits",
    "Local",
    "Log",
    "Pointer",
    "Price",
    "Redact",
    "Redis",
    "Registry",
    "Results",
    "Review",
    "RoleArn",
    "Route",
    "S3Folder",
    "Seconds",
    "Settings",
    "Share",
    "Stream",
    "Topic",
    "Tracing",
    "TrainingData",
    "Trial",
    "Unsure",
    "Whole",
    "has_jobs",
    "is_loopback",
    "load",
    "misconfigured",
    "parse",
    "tree",
]
