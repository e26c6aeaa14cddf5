"""What buckia promises, as tests: one file per promise, its docstring says which."""
