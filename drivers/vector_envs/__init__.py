"""How copies of an environment are stepped: one after the other, in processes, by themselves."""
