"""Ray, attached to or started, and lent in parts; processes without it; what becomes of work whose process dies."""
