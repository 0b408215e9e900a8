"""How functions are scaled: a simulation, and in ``lab`` the real programs."""
