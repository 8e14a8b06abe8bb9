"""azure-ai-textanalytics-authoring 1.0.0b1 and azure-ai-textanalytics 6.0.0b3: from labels to answers.

URL, key and the number of documents in the container `tickets` are given; their files are named LABEL-NUMBER.txt.
"""

import sys

from azure.ai.textanalytics import TextAnalysisClient
from azure.ai.textanalytics.authoring import TextAuthoringClient, TextAuthoringProjectClient
from azure.ai.textanalytics.authoring import models as m
from azure.ai.textanalytics.models import (
    CustomSingleLabelClassificationActionContent,
    CustomSingleLabelClassificationOperationAction,
    MultiLanguageInput,
    MultiLanguageTextInput,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

URL, KEY, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
SOON = {"polling_interval": 0.05}
LABELS = ("account", "billing", "crash")
credential = AzureKeyCredential(KEY)
client = TextAuthoringClient(URL, credential)

details = m.CreateProjectOptions(
    project_kind="CustomSingleLabelClassification",
    storage_input_container_name="tickets",
    project_name="tickets-6",
    language="en",
    description="tickets",
    multilingual=False,
)
made = client.create_project("tickets-6", details)
assert (made.project_name, made.project_kind, made.language) == ("tickets-6", "CustomSingleLabelClassification", "en")
assert "tickets-6" in [one.project_name for one in client.list_projects()]
assert ("English (US)", "en-us") in [
    (one.language_name, one.language_code)
    for one in client.list_supported_languages(project_kind="CustomSingleLabelClassification")
]

project = TextAuthoringProjectClient(URL, credential, project_name="tickets-6")
documents = [
    m.ExportedCustomSingleLabelClassificationDocument(
        document_class=m.ExportedDocumentClass(category=label),
        location=f"{label}-{n}.txt",
        language="en",
        dataset="Train",
    )
    for label in LABELS
    for n in range(COUNT)
]
assets = m.ExportedCustomSingleLabelClassificationProjectAsset(
    classes=[m.ExportedClass(category=label) for label in LABELS],
    documents=documents,
)
exported = m.ExportedProject(
    project_file_version="2022-05-01",
    string_index_type="Utf16CodeUnit",
    metadata=m.CreateProjectOptions(
        project_kind="CustomSingleLabelClassification",
        storage_input_container_name="tickets",
        project_name="tickets-6",
        language="en",
    ),
    assets=assets,
)
project.project.begin_import(body=exported, **SOON).result()

options = m.TrainingJobDetails(
    model_label="m1",
    training_config_version="2022-05-01",
    evaluation_options=m.EvaluationDetails(
        kind="percentage", training_split_percentage=80, testing_split_percentage=20
    ),
)
trained = project.project.begin_train(body=options, **SOON).result()
assert (trained.model_label, trained.training_status.percent_complete) == ("m1", 100)
assert [model.label for model in project.project.list_trained_models()] == ["m1"]
model = project.trained_model
summary = model.get_model_evaluation_summary("m1")
assert summary.custom_single_label_classification_evaluation.micro_f1 > 0.3
assert summary.evaluation_options.testing_split_percentage == 20
results = list(model.list_model_evaluation_results("m1", string_index_type="Utf16CodeUnit"))
assert len(results) >= 2
assert all(one.custom_single_label_classification_result.expected_class in LABELS for one in results)

halves = m.EvaluationDetails(kind="percentage", training_split_percentage=50, testing_split_percentage=50)
measured = model.begin_evaluate_model("m1", halves, **SOON).result()
assert (measured.model_label, measured.percent_complete) == ("m1", 100)
assert model.get_model_evaluation_summary("m1").evaluation_options.testing_split_percentage == 50
model.begin_load_snapshot("m1", **SOON).result()

deployment = project.deployment
for name in ("production", "staging"):
    body = m.CreateDeploymentDetails(trained_model_label="m1")
    deployment.begin_deploy_project(name, body, **SOON).result()
assert deployment.get_deployment("production").deployment_name == "production"
project.project.begin_swap_deployments(
    m.SwapDeploymentsDetails(first_deployment_name="production", second_deployment_name="staging"), **SOON
).result()
assert sorted(one.deployment_name for one in project.project.list_deployments()) == ["production", "staging"]

runtime = TextAnalysisClient(URL, credential)
action = CustomSingleLabelClassificationOperationAction(
    name="only",
    action_content=CustomSingleLabelClassificationActionContent(project_name="tickets-6", deployment_name="production"),
)
texts = MultiLanguageTextInput(
    multi_language_inputs=[MultiLanguageInput(id="1", text="I was charged twice on my invoice", language="en")]
)
state = runtime.begin_analyze_text_job(text_input=texts, actions=[action], **SOON)
(item,) = state.result()["tasks"]["items"]
(document,) = item["results"]["documents"]
assert document["class"][0]["category"] == "billing"

project.project.begin_export(string_index_type="Utf16CodeUnit", **SOON).result()
for name in ("production", "staging"):
    deployment.begin_delete_deployment(name, **SOON).result()
model.delete_trained_model("m1")
client.begin_delete_project("tickets-6", **SOON).result()
stranger = TextAuthoringClient(URL, AzureKeyCredential("no"))
for refused, ask, arguments in (
    (ResourceNotFoundError, client.get_project, ["tickets-6"]),
    (ClientAuthenticationError, stranger.get_project, ["tickets-6"]),
    (HttpResponseError, client.create_project, ["a b", details]),
):
    try:
        ask(*arguments)
    except refused:
        continue
    raise AssertionError(refused)
