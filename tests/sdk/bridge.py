"""azure-ai-textanalytics 5.2.0b2, the one client that speaks v3.2-preview.2. URL, key and a project are given."""

import sys

from azure.ai.textanalytics import SingleCategoryClassifyAction, TextAnalyticsClient
from azure.core.credentials import AzureKeyCredential

URL, KEY, PROJECT = sys.argv[1:4]
client = TextAnalyticsClient(URL, AzureKeyCredential(KEY))
action = SingleCategoryClassifyAction(project_name=PROJECT, deployment_name="production")
texts = ["I was charged twice on my invoice", "the app crashes when it starts", " "]
answered = list(client.begin_analyze_actions(texts, actions=[action], polling_interval=0.05).result())
found = [[one.is_error or one.classification.category for one in results] for results in answered]
assert found == [["billing"], ["crash"], [True]], found
