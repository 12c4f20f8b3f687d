"""From an objective to a trained state."""
