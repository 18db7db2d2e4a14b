"""What is read from outside: event files in bulk, files of requests, what has landed."""
