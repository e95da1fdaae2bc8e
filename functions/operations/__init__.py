"""What became of an event, and which id belongs to which: for the people who ask."""
