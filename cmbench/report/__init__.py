"""Reports built from records: tables, plots, HTML."""
