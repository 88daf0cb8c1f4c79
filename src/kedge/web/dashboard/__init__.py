"""Dashboard: pages for browsers, rendered on the server from the results of operations."""
