"""What can go wrong with an environment, and how it is found."""
