"""One run trained: its trainer, rollout actors and teachers, from its start to its end in the store."""
