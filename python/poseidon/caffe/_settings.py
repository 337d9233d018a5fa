"""What a script sets for all nets that are made after it."""
seed = 1
