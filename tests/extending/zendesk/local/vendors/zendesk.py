"""Zendesk, as its pages document it: create, show and search an organization, with an API token.

Ours, because nothing is documented: the texts of errors, and `pages`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from werkzeug.wrappers import Request, Response

from crm_bridge.outbound.response import basic
from local.vendors.simulator import Example, Simulator, json_response

PATH = "/api/v2/organizations"


@dataclass
class ZendeskSimulator(Simulator):
    """`search_lag` holds new organizations back from the search."""

    name: str = "zendesk"
    email: str = "bridge@acme.example"
    api_token: str = "zendesk-demo-token"
    organizations: list[dict[str, object]] = field(default_factory=list)
    pages: int = 1
    """More than one: a search says that there is a next page."""

    def respond(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Basic {basic(f'{self.email}/token', self.api_token)}":
            return json_response({"error": "Couldn't authenticate you"}, 401)
        match request.method, request.path.removeprefix(PATH):
            case "POST", "":
                return self._create(json.loads(request.get_data())["organization"])
            case "GET", "/search":
                return self._search(request.args["external_id"])
            case "GET", path:
                found = next((one for one in self.organizations if path == f"/{one['id']}"), None)
                if found:
                    return json_response({"organization": found})
        return json_response({"error": "RecordNotFound", "description": "Not found"}, 404)

    def held(self) -> dict[str, object]:
        return {"organizations": self.organizations}

    def blocks(self) -> dict[str, dict[str, object]]:
        login = {"base_url": self.url, "email": self.email, "api_token": self.api_token}
        return {"zendesk": {**login, "search_lag": 30}}

    def examples(self) -> Sequence[Example]:
        company = {"company_id": "7001", "name": "Acme", "domains": ["acme.example"]}
        return (Example("A company becomes an organization.", "POST", "/organizations", company),)

    def _create(self, sent: dict[str, object]) -> Response:
        for member in ("name", "external_id"):
            if any(self._is_same(one[member], sent[member]) for one in self.organizations):
                taken = {member: [{"error": "DuplicateValue", "description": f"{member} has already been taken"}]}
                return json_response({"error": "RecordInvalid", "details": taken}, 422)
        made_at = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        made = {**sent, "id": 35_436 + len(self.organizations), "created_at": made_at}
        self.organizations.append(made)
        return json_response({"organization": made}, 201)

    def _search(self, external_id: str) -> Response:
        shown = datetime.fromtimestamp(self.clock() - self.search_lag, UTC).isoformat()
        found = [
            one
            for one in self.organizations
            if self._is_same(one["external_id"], external_id) and str(one["created_at"]) <= shown
        ]
        next_page = f"{self.url}{PATH}/search?page=2" if self.pages > 1 else None
        return json_response({"organizations": found, "count": len(found), "next_page": next_page})

    @staticmethod
    def _is_same(one: object, other: object) -> bool:
        return str(one).casefold() == str(other).casefold()
