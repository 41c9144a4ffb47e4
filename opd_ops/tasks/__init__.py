"""Prompts, demonstrations and verifiers."""
