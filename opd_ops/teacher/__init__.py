"""What the teacher says of the student's tokens."""
