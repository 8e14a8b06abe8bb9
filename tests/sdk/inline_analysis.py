"""azure-ai-contentunderstanding 1.2.0b3, which speaks 2026-06-01-preview. Takes URL, key and a PDF in base64.

The PDF has three pages: an invoice, another text, an invoice.
"""

import base64
import sys

from azure.ai.contentunderstanding import ContentUnderstandingClient
from azure.ai.contentunderstanding import models as m
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

URL, KEY, DOCUMENT = sys.argv[1:4]
client = ContentUnderstandingClient(URL, AzureKeyCredential(KEY))
bill = m.ContentCategoryDefinition(description="A bill that asks for payment of goods or services, with an amount due")
made = client.begin_create_analyzer(
    "inline",
    m.ContentAnalyzer(
        base_analyzer_id="prebuilt-document",
        config=m.ContentAnalyzerConfig(segment_per_page=True, content_categories={"invoice": bill}),
        models={"completion": "gpt-4.1"},
    ),
    polling_interval=0.05,
).result()
assert (made.analyzer_id, made.status) == ("inline", "ready")

document = base64.b64decode(DOCUMENT)
found = client.analyze_inline("inline", inputs=[m.AnalysisInput(data=document, mime_type="application/pdf")])
whole, *parts = getattr(found, "result", found).contents
assert [one.category for one in whole.segments] == ["invoice", "$OTHER", "invoice"]
assert [one.category for one in parts] == ["invoice", "$OTHER", "invoice"]
found = client.analyze_binary_inline("inline", binary_input=document, content_range="2-")
_, *parts = getattr(found, "result", found).contents
assert [(one.category, one.start_page_number) for one in parts] == [("$OTHER", 2), ("invoice", 3)]

later = client.begin_analyze(
    "inline", inputs=[m.AnalysisInput(data=document, content_range="1")], polling_interval=0.05
)
_, *parts = later.result().contents
assert [one.category for one in parts] == ["invoice"]
for refused, name, content in (
    (HttpResponseError, "inline", b"%PDF-1.4 damaged"),
    (ResourceNotFoundError, "nobody", b"x"),
):
    try:
        client.analyze_binary_inline(name, binary_input=content)
    except refused:
        continue
    raise AssertionError(refused)
