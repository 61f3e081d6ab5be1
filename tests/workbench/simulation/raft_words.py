"""Describes raft.py's messages in the paper's words, for tests/traces and for error reports."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def entries(index: int, terms: list[int]) -> str:
    """Describes entries from this index on, given their terms."""
    if len(terms) == 1:
        return f"entry {index} of term {terms[0]}"
    return f"entries {index}..{index + len(terms) - 1} of terms {' '.join(map(str, terms))}"


def told(body: Body) -> str:
    """Describes a message; "" for init and init_ok, which are not shown."""
    pre = " (pre)" if body.get("pre") else ""
    match body:
        case {"type": "request_vote", "last_log_index": last, "last_log_term": of}:
            return f"request_vote{pre} in term {body['term']}, last entry {last} of term {of}"
        case {"type": "request_vote_res", "granted": True}:
            return f"vote{pre} in term {body['term']}"
        case {"type": "request_vote_res"}:
            why = f"{body['leader']} leads" if body["leader"] else f"in term {body['term']}"
            return f"no vote{pre}, {why}"
        case {"type": "append_entries", "prev_log_index": prev, "prev_log_term": of}:
            terms = [entry[0] for entry in body["entries"]]
            what = entries(prev + 1, terms) if terms else "nothing"
            after = f"{prev} of term {of}" if prev else "none"
            commit = f"commit {body['leader_commit']}"
            return f"append_entries in term {body['term']}: {what} after {after}; {commit}"
        case {"type": "append_entries_res", "success": True}:
            records, index = body["offset"], body["snapshot"]
            more = f", has {records} records of the state up to {index}" if index else ""
            return f"agrees up to {body['match']}{more}"
        case {"type": "append_entries_res", "match": match}:
            return f"refuses in term {body['term']}" + (f": go on after {match}" if match else "")
        case {"type": "forward"}:
            return "forward: " + ", ".join(told(op[2]) for op in body["reads"] + body["writes"])
        case {"type": "write" | "read_ok" as name, "value": value}:
            return f"{name} {value}"
        case {"type": "cas", "from": old, "to": new}:
            return f"cas {old} to {new}"
        case {"type": "txn" | "txn_ok" as name, "txn": txn}:
            return f"{name} {txn}"
        case {"type": "init" | "init_ok"}:
            return ""
        case {"type": "error", "code": code, "text": text}:
            return f"error {code}, {text}"
    return str(body["type"])
