"""Every code that an error of the API can have, for people: /docs/errors shows it, and docs/errors.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explained:
    """What a code means and what to do about it, in Markdown of plain words and backticks."""

    code: str
    status: int
    meaning: str
    remedy: str


ERRORS = (
    Explained(
        "MalformedRequest",
        400,
        "What came is not HTTP/1.1, or could be read in more than one way: two Host headers, two lengths.",
        "Look at the client, or at a proxy before the server.",
    ),
    Explained(
        "BodyNotGzip",
        400,
        "The body is said to be gzip and is none, is cut short, or has something behind it. Nothing was taken.",
        "Pack it anew, or send it as it is, without Content-Encoding.",
    ),
    Explained(
        "OriginRefused",
        400,
        "A browser asked whether a page of another origin may call the API, and it may not.",
        "An operator names the origin in CORS_ORIGINS.",
    ),
    Explained(
        "Unauthorized",
        401,
        "There is no key, or none that is known. A key that was revoked is not known any more.",
        "Send one as X-API-Key or as a bearer token; `dpdau api-key new` makes one.",
    ),
    Explained("KeyExpired", 401, "The key was valid, and its last day is over.", "Have another one made."),
    Explained(
        "Forbidden",
        403,
        "The key is valid, and has not the scope that `scope` names.",
        "Use a key with that scope: `ingest` for events, `erase` for erasures, `read` for numbers, `admin` for the "
        "rest.",
    ),
    Explained("NotFound", 404, "No route has this path.", "/docs lists the routes. None ends with a slash."),
    Explained(
        "NotPublished",
        404,
        "The number is not there. `never` says whether anything will make it as things stand, `why` is a short code, "
        "and `due` the day on which it comes.",
        "Wait for `due`, or do what `remedy` says: it names the job.",
    ),
    Explained("UnknownReceipt", 404, "No erasure request has this receipt.", "GET /erasure lists the receipts."),
    Explained(
        "MethodNotAllowed", 405, "The path is there for other methods.", "The Allow header names those that it takes."
    ),
    Explained(
        "NotAcceptable",
        406,
        "The Accept header admits none of the representations.",
        "Accept application/json, text/csv or application/vnd.apache.arrow.stream.",
    ),
    Explained(
        "HeadersTooSlow", 408, "The headers were not complete in time.", "Send it again; look at the line between."
    ),
    Explained(
        "BodyTooSlow", 408, "The body was not complete in time. Nothing of it was taken.", "Send it in smaller pieces."
    ),
    Explained(
        "Refused",
        409,
        "The privacy contract or the state of the store forbids it: a day that is not over, one that a number has "
        "read, an erasure that is being applied.",
        "What `remedy` says. Sending it again changes nothing.",
    ),
    Explained(
        "RequestRunning",
        409,
        "A request with this Idempotency-Key has not been answered yet.",
        "Send it again after Retry-After.",
    ),
    Explained(
        "BodyTooLarge",
        413,
        "The body is larger than one request may be, as sent or unpacked. Nothing of it was taken.",
        "Send it in several requests.",
    ),
    Explained(
        "TooManyAtOnce",
        413,
        "The request has more events or erasure requests than are let through in a minute: it would never be taken.",
        "Send them in several requests.",
    ),
    Explained("UrlTooLong", 414, "Path and query are longer than any route needs.", "Send what is long in a body."),
    Explained(
        "UnsupportedMediaType",
        415,
        "The Content-Type is not one that is read, or names another charset than UTF-8.",
        "Send application/json, or one JSON object a line as application/x-ndjson.",
    ),
    Explained(
        "EncodingUnknown",
        415,
        "The Content-Encoding is neither gzip nor identity.",
        "Send it as gzip, or as it is.",
    ),
    Explained(
        "InvalidRequest",
        422,
        "A part of the request is missing, or not what the route takes. `errors` names each `field` and its `rule`.",
        "Correct them. What was sent is not repeated in the answer.",
    ),
    Explained(
        "NoValidRow",
        422,
        "None of the events is valid, and nothing was taken. `rejected_by_reason` says how many break which rule.",
        "Correct them; with `?explain=1`, `errors` names each by its place.",
    ),
    Explained(
        "BadInput",
        422,
        "What was sent can be read, and cannot be taken: a day before START_DATE, a name that nothing has.",
        "What `remedy` says.",
    ),
    Explained(
        "IdempotencyKeyReused",
        422,
        "The Idempotency-Key came with another body, or to another path, within a day.",
        "Take a new key for a new request.",
    ),
    Explained(
        "TooManyRequests",
        429,
        "More requests or events came in a minute than a key, or an address, is let through with.",
        "Wait as long as Retry-After says, and send larger batches.",
    ),
    Explained(
        "BudgetRefused",
        429,
        "The number is not there, and as things stand its month's budget does not admit it: in epsilon, `spent` by the "
        "numbers that are out, `charged`, `asked` and the `cap`.",
        "Ask for `next_day`, the next that fits, if one is named. Waiting changes nothing; only an override on the "
        "record does: `dpdau reset-budget`.",
    ),
    Explained(
        "HeadersTooLarge", 431, "The headers are more, or longer, than are read.", "Send fewer: no cookies are used."
    ),
    Explained(
        "Unexpected",
        500,
        "Something failed that should not.",
        "An operator finds it in the log, under the request's id, which is in `instance`.",
    ),
    Explained(
        "Unavailable",
        503,
        "Nothing was taken: the server cannot keep anything, as with a full disk or a ledger that does not answer.",
        "Send it again after Retry-After. An operator finds the reason at /readyz and in the log.",
    ),
    Explained(
        "TooManyConnections",
        503,
        "The server has as many connections as it takes.",
        "Come back later, and keep fewer connections open.",
    ),
    Explained(
        "BadSetting",
        503,
        "The server's settings, or files that it was given, do not allow it.",
        "An operator finds the reason in the server's log, under the request's id; docs/settings.md lists them.",
    ),
    Explained(
        "Damaged",
        503,
        "Something that the server keeps is damaged, or of another store.",
        "An operator finds it named in the server's log, under the request's id; docs/runbook.md has what to do.",
    ),
)


def in_markdown() -> str:
    """The table as docs/errors.md has it, with the codes for anchors."""
    rows = (f'| <a id="{row.code}"></a>{row.code} | {row.status} | {row.meaning} | {row.remedy} |' for row in ERRORS)
    return "\n".join(("| code | status | means | what to do |", "|---|---|---|---|", *rows))
