"""The object store: whole files under keys, with S3's words and S3's promises, on the lake's own disk."""
