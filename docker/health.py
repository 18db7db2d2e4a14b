"""Whether a service in its container answers: `health.py http://127.0.0.1:8000/healthz`; exit code 0 or 1.

The image has no curl. A redirect or an error is not an answer.
"""

import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

SECONDS = 4


def answers(url: str) -> bool:
    """Whether a GET of this address is answered by 200."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
