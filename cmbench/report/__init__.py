"""Reports made of records: tables, plots, HTML."""
