"""What each objective's gradient really is, one file each."""
