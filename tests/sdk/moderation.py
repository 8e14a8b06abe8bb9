"""azure-ai-contentsafety 1.1.0b1, which speaks 2026-09-01-preview. URL, key, and a text of hatred are given."""

import sys

from azure.ai.contentsafety import BlocklistClient, ContentSafetyClient
from azure.ai.contentsafety import models as m
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

URL, KEY, HATRED = sys.argv[1:4]
credential = AzureKeyCredential(KEY)
client, blocklists = ContentSafetyClient(URL, credential), BlocklistClient(URL, credential)

found = client.analyze_text(m.AnalyzeTextOptions(text=HATRED))
severities = {one.category: one.severity for one in found.categories_analysis}
assert severities.pop("Hate") >= 4, severities
assert severities == {"SelfHarm": 0, "Sexual": 0, "Violence": 0}
found = client.analyze_text(
    m.AnalyzeTextOptions(text=HATRED, categories=["Hate"], output_type=m.AnalyzeTextOutputType.EIGHT_SEVERITY_LEVELS)
)
assert [one.category for one in found.categories_analysis] == ["Hate"]

named = {"blocklist_name": "preview"}
made = blocklists.create_or_update_text_blocklist(options=m.TextBlocklist(description="first", **named), **named)
assert (made.blocklist_name, made.description) == ("preview", "first")
items = [m.TextBlocklistItem(text="scalper", description="d"), m.TextBlocklistItem(text="tout")]
added = blocklists.add_or_update_blocklist_items(
    options=m.AddOrUpdateTextBlocklistItemsOptions(blocklist_items=items), **named
)
_, tout = added.blocklist_items
assert "preview" in [one.blocklist_name for one in blocklists.list_text_blocklists()]
assert [one.text for one in blocklists.list_text_blocklist_items(maxpagesize=1, **named)] == ["scalper", "tout"]
got = blocklists.get_text_blocklist_item(blocklist_item_id=tout.blocklist_item_id, **named)
assert got.text == "tout"
found = client.analyze_text(
    m.AnalyzeTextOptions(text="You tout!", blocklist_names=["preview"], halt_on_blocklist_hit=True)
)
assert [one.blocklist_item_text for one in found.blocklists_match] == ["tout"]
assert not found.categories_analysis
removed = m.RemoveTextBlocklistItemsOptions(blocklist_item_ids=[tout.blocklist_item_id])
blocklists.remove_blocklist_items(options=removed, **named)
assert [one.text for one in blocklists.list_text_blocklist_items(**named)] == ["scalper"]
blocklists.delete_text_blocklist(**named)

stranger = ContentSafetyClient(URL, AzureKeyCredential("no"))
for refused, ask, arguments in (
    (ResourceNotFoundError, blocklists.get_text_blocklist, {**named}),
    (HttpResponseError, client.analyze_text, {"options": m.AnalyzeTextOptions(text="x" * 10_001)}),
    (ClientAuthenticationError, stranger.analyze_text, {"options": m.AnalyzeTextOptions(text="x")}),
):
    try:
        ask(**arguments)
    except refused:
        continue
    raise AssertionError(refused)
