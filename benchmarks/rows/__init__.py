"""The rows of the table, one family a file; each gives `measure(quick)`."""
