"""Curation: ingest, scorers, selection and the report."""
