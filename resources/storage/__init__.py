"""What is kept on disk: keyed state, sketches, the inbox, the quarantine, backups, and how files are replaced."""
