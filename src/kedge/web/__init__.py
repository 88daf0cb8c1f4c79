"""Web: control's HTTP side: origin checks, bounds of a request, the API, and the server."""
