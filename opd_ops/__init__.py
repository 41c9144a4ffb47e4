"""What is computed: recipes, tasks, objectives, rollouts, the training loop, and the geometry of weight updates."""
