"""What is on disk: schemas, tables and their writers. No Ray, no models."""
