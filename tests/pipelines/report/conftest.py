from tests.pipelines.planted import every, plant, smollm, story, tiny, varied

__all__ = ["every", "plant", "smollm", "story", "tiny", "varied"]
