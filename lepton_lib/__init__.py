"""The thin library behind the course; import its modules by name."""
