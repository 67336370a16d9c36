"""What only the book's experiments need: blocks, models, data, training and figures."""
