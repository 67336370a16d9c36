"""What keeps the book: its site, its notebooks and their copies, its long comparisons and its data."""
