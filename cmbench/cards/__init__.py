"""Model cards: finding them, opening their networks, starting and shipping a family."""
