"""Pure functions on tensors: returns, losses, masking, distributions, schedules."""
