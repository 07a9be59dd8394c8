"""The catalog: what tables there are, who may write now, and every snapshot there was."""
