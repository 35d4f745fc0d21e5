"""Collection by actors of Ray Core."""
