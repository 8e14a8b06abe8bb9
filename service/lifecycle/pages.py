"""The way through a list that a service gives in pages."""

from service.providers.azure import Resource


class Pages:
    """The links from page to page of one list of Azure's, each of which is followed once."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._followed: set[str] = set()

    def after(self, page: object) -> str | None:
        """Where the next page is; None after the last. Raises Unavailable where that leads back."""
        link = page.get("nextLink") if isinstance(page, dict) else None
        if link is None:
            return None
        url = self._resource.ours(link)
        if url in self._followed:
            raise self._resource.malformed("pages without an end")
        self._followed.add(url)
        return url
