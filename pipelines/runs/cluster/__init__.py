"""Ray: attached to or started, lent in parts, and what becomes of work whose process dies."""
