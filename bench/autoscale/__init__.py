"""How functions are scaled: a simulation."""
