"""The stages, the loop that runs them, heads, and the state that lets a run go on."""
