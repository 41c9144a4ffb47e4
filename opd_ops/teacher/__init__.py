"""The teacher's log-probabilities of the student's tokens."""
