"""illu, as its integration page documents it: CREATE SITE and CREATE JOB answer 201, every call needs the bearer key.

Ours, because nothing is documented: the error bodies, what exactly is refused, what a created job answers besides
`job_id`, and `GET /orgs/{org_id}/sites` and `/jobs`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from werkzeug.wrappers import Request, Response

from local.vendors.simulator import Example, Kind, Simulator, json_response

_SITE: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "latitude": (int, float),
    "longitude": (int, float),
    "address": str,
}
_JOB: dict[str, type] = {
    "name": str,
    "site_id": int,
    "due_date": str,
    "assigned_user_id": int,
    "notes": str,
    "tag_ids": list,
    "workflow_instances": list,
}

CUSTOMER: dict[str, object] = {
    "customer_id": "C-1001",
    "name": "Shop 12, Kitale",
    "latitude": 1.0157,
    "longitude": 35.0062,
    "address": "Moi Ave 12",
}


@dataclass
class IlluSimulator(Simulator):
    name: str = "illu"
    org_id: int = 88
    api_key: str = "illu-demo-key"
    sites: list[dict[str, object]] = field(default_factory=list)
    next_id: int = 4711
    longest_name: int = 1000
    jobs: list[dict[str, object]] = field(default_factory=list)
    next_job_id: int = 801

    def respond(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return json_response({"message": "Invalid API key"}, 401)
        collection = request.path.removeprefix(f"/orgs/{self.org_id}/")
        if collection == request.path:
            return json_response({"message": "No access to this organisation"}, 403)
        match request.method, collection:
            case "POST", "sites":
                return self._create_site(request)
            case "POST", "jobs":
                return self._create_job(request)
            case "GET", "sites":
                return self._list(request, self.sites)
            case "GET", "jobs":
                return self._list(request, self.jobs)
        return json_response({"message": "Not found"}, 404)

    def held(self) -> dict[str, object]:
        return {"sites": self.sites, "jobs": self.jobs}

    def blocks(self) -> dict[str, dict[str, object]]:
        lists = {f"{kind}_list_path": f"/orgs/{{org_id}}/{kind}s" for kind in ("site", "job")}
        account = {"base_url": self.url, "org_id": self.org_id, "api_key": self.api_key}
        return {"illu": {**account, **lists, "search_lag": 30}}

    def examples(self) -> Sequence[Example]:
        return (
            Example("A new customer becomes a site. Send it twice: there is still one.", "POST", "/sites", CUSTOMER),
            Example("The links of that customer.", "GET", "/links/crm/customer/C-1001"),
            Example(
                "Let illu do the next one, but lose its response: you get 202. Within two minutes the bridge "
                "finds the site by itself.",
                "POST",
                "/sites",
                {**CUSTOMER, "customer_id": "C-1002", "name": "Shop 2, Eldoret"},
                Kind.CLOSE_AFTER,
            ),
            Example("The outcome.", "GET", "/operations?id=C-1002"),
        )

    def add_site(self, name: str, latitude: float, longitude: float, address: str) -> dict[str, object]:
        """A site as it is after illu made it, whoever asked for it."""
        site: dict[str, object] = {
            "site_id": self.next_id,
            "name": self.altered(name),
            "is_active": True,
            "org_id": self.org_id,
            "latitude": latitude,
            "longitude": longitude,
            "address": self.altered(address),
            "created_at": self._now(),
        }
        self.next_id += 1
        self.sites.append(site)
        return site

    def _create_site(self, request: Request) -> Response:
        try:
            sent = json.loads(request.get_data())
        except ValueError:
            return json_response({"message": "Malformed JSON"}, 400)
        wrong = [name for name, kind in _SITE.items() if not isinstance(sent.get(name), kind)]
        if not wrong and len(sent["name"]) > self.longest_name:
            wrong = ["name"]
        if wrong:
            return json_response({"message": f"Invalid fields: {', '.join(wrong)}"}, 422)
        site = self.add_site(**{name: sent[name] for name in _SITE})
        return json_response({name: value for name, value in site.items() if name != "created_at"}, 201)

    def _create_job(self, request: Request) -> Response:
        try:
            sent = json.loads(request.get_data())
        except ValueError:
            return json_response({"message": "Malformed JSON"}, 400)
        wrong = [name for name, kind in sent.items() if name not in _JOB or not isinstance(kind, _JOB[name])]
        wrong += [name for name in ("name", "site_id") if name not in sent]
        if wrong:
            return json_response({"message": f"Invalid fields: {', '.join(wrong)}"}, 422)
        if sent["site_id"] not in [site["site_id"] for site in self.sites]:
            return json_response({"message": "No such site"}, 404)
        texts = {name: self.altered(sent[name]) for name in ("name", "notes") if name in sent}
        job = {"job_id": self.next_job_id, "org_id": self.org_id, **sent, **texts, "created_at": self._now()}
        self.next_job_id += 1
        self.jobs.append(job)
        return json_response({name: value for name, value in job.items() if name != "created_at"}, 201)

    def _list(self, request: Request, records: list[dict[str, object]]) -> Response:
        newest = self.clock() - self.search_lag
        wanted = request.args.get("name")
        listed = [
            record
            for record in records
            if datetime.fromisoformat(str(record["created_at"])).timestamp() <= newest
            and (wanted is None or record["name"] == wanted)
        ]
        return json_response(listed)

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).isoformat()
