"""What goes out to people: alerts and the daily digest, kept until they have arrived, and the ways that they take."""
