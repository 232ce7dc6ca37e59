"""What went wrong between us and MLflow: each kind of failure with a message and a remedy of its own."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from mlflow.exceptions import MlflowException

from weathermill.errors import WeathermillError
from weathermill.redaction import redact

_EXCERPT = 300
_CONFLICTS = {"ABORTED", "RESOURCE_CONFLICT", "ALREADY_EXISTS"}
_BUSY = {
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
}
#: Answers about the operation itself: the same operation will get the same answer again.
_FINAL = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_IMPLEMENTED",
    "ENDPOINT_NOT_FOUND",
    "NOT_FOUND",
}
_FINAL_STATUS = {400, 405, 410, 413, 414, 422, 501}


@dataclass(frozen=True)
class Answer:
    """A failure, explained.

    Parameters
    ----------
    reason
        What is wrong, in one sentence.
    remedy
        What to do about it.
    final
        Whether the same operation would be refused again, however often it is tried. This holds only for a run that
        is active on a server that otherwise answers, which the caller has to find out.
    """

    reason: str
    remedy: str
    final: bool = False

    def __str__(self) -> str:
        return self.text()

    def text(self, consequence: str = "") -> str:
        """The reason, what follows from it, and the remedy, for reading."""
        return f"{self.reason}{f'; {consequence}' if consequence else ''}\n  -> {self.remedy}"


class UnavailableError(Exception):
    """MLflow answers, but not in a state in which anything can be recorded now.

    Parameters
    ----------
    reason, remedy
        As for `Answer`.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.answer = Answer(reason, remedy)


def no_mlflow() -> UnavailableError:
    """The exception for an answer that MLflow would not give."""
    return UnavailableError(
        "what answers is no MLflow server",
        "Correct `tracking_uri` or MLFLOW_TRACKING_URI, or log in where a proxy asks.",
    )


_LATER = "`weathermill sync` tries again, and so does the next run"


def explain(error: BaseException) -> Answer:
    """Explain an exception that MLflow, its client or its artefact store raised."""
    links = list(_chain(error))
    for link in links:
        if isinstance(link, UnavailableError):
            return link.answer
        if isinstance(link, WeathermillError):
            return Answer(link.what, link.remedy)
    said = _excerpt(str(error))
    if (of_database := _of_database(links, said)) is not None:
        return of_database
    for link in links:
        if isinstance(link, ImportError):
            return Answer(
                f"a package is missing: {link}", f"Install it (`pip install {link.name or '...'}`)."
            )
    return _of_http(error, links, said)


def _of_http(error: BaseException, links: list[BaseException], said: str) -> Answer:
    text = " ".join(str(link) for link in links)
    code = error.error_code if isinstance(error, MlflowException) else ""
    status = _status(links, text)
    if "too many" in text and "error responses" in text:
        found = re.search(r"too many (\d+) error responses", text)
        return _busy(int(found.group(1)) if found else None, _address(text))
    if any(isinstance(link, requests.exceptions.InvalidURL) for link in links):
        return Answer(f"the address is malformed: {said}", "Correct `tracking_uri` or MLFLOW_TRACKING_URI.")
    if any(isinstance(link, requests.exceptions.SSLError) for link in links):
        return Answer(
            f"the server's certificate is not trusted: {said}",
            "Set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of its authority.",
        )
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or status == 401:
        return Answer(
            "the server wants a name and password, or does not know those given",
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
        )
    if code == "PERMISSION_DENIED" or status == 403:
        return Answer(
            f"the server forbids it (403): {said}",
            "Ask its administrator for permission to write to the experiment, or log in as another user.",
        )
    if _is_web_page(text) or "valid JSON" in text or any(_is_not_json(link) for link in links):
        return Answer(
            f"what answers is no MLflow server, but a web page (a login or error page of a proxy?): {said}",
            "Log in where it asks for it, or correct `tracking_uri` or MLFLOW_TRACKING_URI.",
            final=status == 413,
        )
    if code in _CONFLICTS or status == 409:
        return Answer(f"the server says that something else is at work on it (409): {said}", f"{_LATER}.")
    if status == 429 or code in _BUSY or (status is not None and status >= 500):
        return _busy(status, said)
    if (isinstance(error, MlflowException) and "failed with exception" in text) or _is_silent(links):
        return Answer(
            f"MLflow does not answer: {_cause(links, said)}",
            f"See that the server runs, and that `tracking_uri` or MLFLOW_TRACKING_URI names it; {_LATER}.",
        )
    if code == "INTERNAL_ERROR" or code == "INVALID_STATE":
        return _busy(None, said)
    if code in _FINAL or status in _FINAL_STATUS:
        return Answer(f"the server refuses it: {said}", "Correct what the server names.", final=True)
    return Answer(f"{type(error).__name__}: {said}", f"Correct what the message names; {_LATER}.")


def _busy(status: int | None, said: str) -> Answer:
    if status == 429:
        return Answer("the server has been asked too often (429)", f"Wait; {_LATER}.")
    number = f" ({status})" if status else ""
    return Answer(
        f"the server answers with an error of its own{number}: {said}",
        f"Look into the server's log; {_LATER}.",
    )


def _of_database(links: list[BaseException], said: str) -> Answer | None:
    """Explain what SQLite says, whoever has wrapped it."""
    text = " ".join(str(link) for link in links)
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return Answer(
            f"the database's schema is not that of the installed MLflow: {said}",
            "Copy the database, then run `mlflow db upgrade <tracking URI>`; or install the MLflow that it was made by.",
        )
    if not any(isinstance(link, sqlite3.Error) or "sqlite3." in str(link) for link in links):
        return None
    for words, answer in _OF_SQLITE.items():
        if words in text:
            return answer
    return Answer(f"the database fails: {said}", f"Look at the file that `tracking_uri` names; {_LATER}.")


_OF_SQLITE = {
    "locked": Answer(
        "the database is locked by another process", f"Wait for that process, or end it; {_LATER}."
    ),
    "readonly": Answer("the database is read-only", "Make the file and its folder writable."),
    "not a database": Answer(
        "the file is no SQLite database", "Correct `tracking_uri` or MLFLOW_TRACKING_URI."
    ),
    "unable to open": Answer(
        "the database cannot be opened", "Make its folder, and the file writable, or correct `tracking_uri`."
    ),
    "malformed": Answer(
        "the database is damaged", "Bring back a copy of it; `sqlite3 <file> .recover` saves what is left."
    ),
    "disk is full": Answer("the disk of the database is full", "Free disk space."),
}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(links: list[BaseException], text: str) -> int | None:
    for link in links:
        response = getattr(link, "response", None)
        if (status := getattr(response, "status_code", None)) is not None:
            return int(status)
    found = re.search(r"failed with error code (\d{3})", text)
    return int(found.group(1)) if found else None


def _is_silent(links: list[BaseException]) -> bool:
    silent = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, ConnectionError, TimeoutError)
    return any(isinstance(link, silent) for link in links)


def _is_web_page(text: str) -> bool:
    return re.search(r"(?i)<!doctype html|<html", text) is not None


def _is_not_json(link: BaseException) -> bool:
    return type(link).__name__ == "JSONDecodeError"


def _address(text: str) -> str:
    """The server that a message is about."""
    found = re.search(r"https?://[^/\s]+", text)
    return redact(found.group()) if found else "the server"


def _cause(links: list[BaseException], said: str) -> str:
    """What the operating system says of a connection, without the layers around it."""
    text = " ".join(str(link) for link in links)
    found = re.search(r"\[Errno -?\d+\] [\w ]+|timed out|Name or service not known", text)
    return f"{_address(text)}: {found.group()}" if found and "http" in text else said


def _excerpt(text: str) -> str:
    """The beginning of a message, on one line, without credentials."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]} ..."
