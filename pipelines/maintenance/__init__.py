"""What a store holds, whether it is whole, what may go, and how a run moves to another store."""
