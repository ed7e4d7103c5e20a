"""History and online rows in SQL databases, through SQLAlchemy Core."""
