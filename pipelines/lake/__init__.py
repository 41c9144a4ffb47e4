"""Tables: their schemas, how they are written and scanned."""
