"""The page of a run: report, tables, figures."""
