"""Model cards: reads them, opens their networks, scaffolds a new family, ships weights."""
