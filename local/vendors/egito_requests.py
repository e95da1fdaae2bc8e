"""How Egito's simulator reads a request, as Spring binds a browser's form; its pages and OAuth errors."""

import json
import re
from http import HTTPStatus

from werkzeug.wrappers import Request, Response

from local.vendors.simulator import json_response

type Record = dict[str, object]

_FORM = "application/x-www-form-urlencoded"


class RequestRefusedError(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def token_parameters(request: Request) -> dict[str, str]:
    return {**request.form.to_dict(), **request.args.to_dict()}


def parameters(request: Request) -> Record:
    """Return those of the query and of the body, which wins.

    Raises RequestRefusedError if the body is neither a form nor an object.
    """
    sent = _nested({**request.args.to_dict(), **request.form.to_dict()})
    if not request.get_data() or request.mimetype == _FORM:
        return sent
    if request.mimetype != "application/json":
        raise RequestRefusedError(page_of(415))
    try:
        body = json.loads(request.get_data())
    except ValueError as error:
        raise RequestRefusedError(page_of(400)) from error
    if not isinstance(body, dict):
        raise RequestRefusedError(page_of(400))
    return {**sent, **body}


def _nested(flat: dict[str, str]) -> Record:
    """With `owner.id` as the member `id` of an object `owner`, as Spring binds a form."""
    nested: Record = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        within = nested
        for part in outer:
            inner = within.get(part)
            if not isinstance(inner, dict):
                inner = dict[str, object]()
                within[part] = inner
            within = inner
        within[last] = value
    return nested


def page_of(status: int) -> Response:
    """Return the web server's response to a request that never got as far as the application."""
    title = f"HTTP Status {status} - {HTTPStatus(status).phrase}"
    text = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Response(text, status, mimetype="text/html")


def positive(value: object, default: int) -> int:
    """Return a positive number as it was sent, or the default for anything else."""
    text = str(value)
    return int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else default


def oauth_error(status: int, error: str, description: str, challenge: str | None = None) -> Response:
    """`challenge` doesn't repeat the description: a header can't hold every character that a token may be sent with."""
    response = json_response({"error": error, "error_description": description}, status)
    if challenge:
        response.headers["WWW-Authenticate"] = challenge
    return response
