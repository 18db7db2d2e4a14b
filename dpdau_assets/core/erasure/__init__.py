"""From a request to be erased to the receipt that says what is left, and what is let go of by itself."""
