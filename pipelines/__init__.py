"""How it is spread and kept: Ray, the store, tables, the report, studies, the command line."""
