"""From files and frames to tables: read strictly, hashed, landed in one commit."""
