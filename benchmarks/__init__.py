"""What the book measures, and the results it shows."""
