"""Drawing sequences from a model: the contract and its backends."""
