"""Records of Upya, with all members that are known."""

from typing import Any

TICKET: dict[str, Any] = {
    "ticketId": "64f0c0ffee",
    "ticketNumber": "TCK-501",
    "status": "open",
    "progress": "new",
    "title": "Meter does not count",
    "contractNumber": "K-77",
    "clientNumber": "C-1001",
    "origin": "call centre",
    "createdAt": "2026-11-20T07:00:00.000Z",
    "updatedAt": "2026-11-20T07:05:00.000Z",
}
CLIENT: dict[str, Any] = {
    "clientNumber": "C-1001",
    "status": "active",
    "entryDate": "2026-11-20T07:00:00.000Z",
    "profile": {
        "firstName": "Achieng",
        "lastName": "Odhiambo",
        "gender": "f",
        "village": "Kibomet",
        "district": "Kitale",
        "region": "Trans Nzoia",
        "country": "Kenya",
    },
    "contact": {"mobile": "+254700000001"},
}
