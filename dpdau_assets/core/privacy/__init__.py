"""What a number costs: mechanisms, their price, and the public calendar of releases. Knows no store and no file."""
