"""The check of a real GPU: what the course relies on there, tried in minutes and written down (instructors)."""
