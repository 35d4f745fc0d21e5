"""From experience to updated variables."""
