"""A sealed-bid auction that ends with the winner and the second price."""
