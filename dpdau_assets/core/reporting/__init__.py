"""What people are told: answers, the promise in words, reports, status, and the checks of the store."""
