"""What a text says about a crystal: made from structures, encoded, and told to a model."""
