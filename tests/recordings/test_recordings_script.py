from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.recordings.cases import Case, Folder, event_data, split_events, with_comments
from tests.recordings.check_recordings import main
from tests.recordings.state import state_faults

CHUNKS: list[Any] = [
    {"model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "Zwölf "}}]},
    {"choices": [{"index": 0, "delta": {"content": "Grad 🌧"}}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "call_1",
                            "function": {"name": "look", "arguments": '{"far": true}'},
                        }
                    ]
                },
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    },
]
STREAM = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS) + "data: [DONE]\n\n"
RIGHT: dict[str, Any] = {
    "protocol": "openai.chat",
    "model": "m-1",
    "request": {"body": {}},
    "response": {"status": 200, "headers": {"content-type": "text/event-stream"}, "sse": STREAM},
    "expect": {
        "ok": True,
        "text": "Zwölf Grad 🌧",
        "reasoning_text": "",
        "refusal": "",
        "tool_calls": [{"id": "call_1", "name": "look", "arguments": {"far": True}}],
        "finish_raw": "tool_calls",
        "model": "m-1",
        "usage_raw": CHUNKS[-1]["usage"],
        "usage": {
            "input": 7,
            "output": 5,
            "cache_read": 0,
            "cache_write": 0,
            "reasoning": None,
            "total_reported": 12,
        },
    },
}
REFUSED: dict[str, Any] = {
    "protocol": "openai.chat",
    "model": "m-1",
    "response": {
        "status": 429,
        "headers": {"retry-after": "3"},
        "body": {"error": {"message": "Slow down.", "type": "rate_limit_exceeded"}},
    },
    "expect": {
        "ok": False,
        "text": "",
        "error": {"type": "rate_limit_exceeded", "code": None, "message": "Slow down."},
    },
}


def write(folder: Path, **records: dict[str, Any]) -> None:
    for name, record in records.items():
        path = folder / "somewhere" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record), "utf-8")


def changed(record: dict[str, Any], **expect: Any) -> dict[str, Any]:
    copy = deepcopy(record)
    copy["expect"] |= expect
    return copy


def test_right_readings_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, right=RIGHT, refused=REFUSED)
    assert main([str(tmp_path), "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert "2 cases: openai.chat 2 (0 failed)" in said


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"text": "Zwölf Grad"}, "text"),
        ({"reasoning_text": "Hm."}, "reasoning is ''"),
        ({"refusal": "No."}, "the refusal 'No.' is nowhere"),
        ({"tool_calls": []}, "lost without an error|tool calls is"),
        ({"tool_calls": [{"id": "call_2", "name": "look", "arguments": {"far": True}}]}, "id of"),
        ({"tool_calls": [{"id": "call_1", "name": "look", "arguments": {}}]}, "arguments of look"),
        ({"tool_calls": [{"id": "call_1", "name": "look", "arguments": None}]}, "was cut off"),
        ({"finish_raw": "stop"}, "finish_reason_raw is 'tool_calls'"),
        ({"usage": RIGHT["expect"]["usage"] | {"input": 6, "total_reported": 11}}, "input tokens"),
        ({"usage_raw": {}}, "cache_read tokens are 0, expected None"),
        ({"ok": False, "error": {"type": None, "code": None, "message": "Broken."}}, "no error"),
    ],
)
def test_a_reading_that_differs_fails(
    expect: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, wrong=changed(RIGHT, **expect))
    assert main([str(tmp_path), "--seeds", "1"]) == 1
    output = capsys.readouterr().out
    assert "FAILED somewhere/wrong" in output
    assert any(word in output for word in said.split("|")), output


def test_a_session_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"role": "tool", "tool_call_id": "call_1", "content": "It rains."}
    asked = {"body": {"messages": [result]}}
    write(tmp_path, first=RIGHT, second=RIGHT | {"request": asked})
    names = ["somewhere/first", "somewhere/second"]
    (tmp_path / "index.json").write_text(json.dumps({"sessions": [{"cases": names}]}))
    assert main([str(tmp_path), "--seeds", "0"]) == 0
    assert "1 sessions" in capsys.readouterr().out


def test_a_refusal_of_another_kind_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = deepcopy(REFUSED)
    record["expect"]["error"] = {"type": "server_error", "code": None, "message": "Broken."}
    write(tmp_path, refused=record)
    assert main([str(tmp_path)]) == 1
    assert "does not say" in capsys.readouterr().out


def test_a_folder_without_a_case_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "No case" in capsys.readouterr().out


def test_other_protocols_are_left_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, right=RIGHT, other=RIGHT | {"protocol": "some.other"})
    assert main([str(tmp_path), "--seeds", "0"]) == 0
    assert "left aside: some.other 1" in capsys.readouterr().out


def case_of(tmp_path: Path, record: dict[str, Any]) -> Case:
    write(tmp_path, one=record)
    return Folder.read(tmp_path).cases["somewhere/one"]


def test_comments_change_no_event() -> None:
    for seed in range(50):
        events = split_events(with_comments(STREAM, seed))
        assert [data for data in map(event_data, events) if data] == CHUNKS


def test_events_are_split_at_blank_lines() -> None:
    assert split_events("a\n\nb\r\n\r\nc") == ["a\n\n", "b\r\n\r\n", "c"]
    assert "".join(split_events(STREAM)) == STREAM


GEMINI_PARTS: list[dict[str, Any]] = [
    {"functionCall": {"name": "look", "args": {}}, "thoughtSignature": "AB+/"},
    {"text": "Well."},
    {"text": "", "thoughtSignature": "CD=="},
]


@pytest.mark.parametrize(
    ("sent", "lost"),
    [
        (GEMINI_PARTS, ""),
        ([{**GEMINI_PARTS[0], "thoughtSignature": "AB-_"}, *GEMINI_PARTS[1:]], ""),
        (GEMINI_PARTS[:2], "CD=="),
        ([GEMINI_PARTS[0], {"text": "Well.", "thoughtSignature": "CD=="}], "CD=="),
        ([GEMINI_PARTS[2], GEMINI_PARTS[1], GEMINI_PARTS[0]], "in its place"),
    ],
)
def test_a_signature_that_is_lost_or_moved_is_told(
    sent: list[dict[str, Any]], lost: str, tmp_path: Path
) -> None:
    case = case_of(
        tmp_path,
        {
            "protocol": "gemini.generate",
            "model": "m-1",
            "response": {
                "status": 200,
                "body": {"candidates": [{"content": {"parts": GEMINI_PARTS}}]},
            },
            "expect": {"ok": True, "text": "Well.", "tool_calls": [{"id": "", "name": "look"}]},
        },
    )
    result = {"functionResponse": {"name": "look", "response": {"output": "far"}}}
    contents = [{"role": "model", "parts": sent}, {"role": "user", "parts": [result]}]
    faults = state_faults(case, {"contents": contents})
    assert (lost in " ".join(faults)) if lost else faults == []


ANTHROPIC_BLOCKS = [
    {"type": "thinking", "thinking": "Hm.", "signature": "S"},
    {"type": "redacted_thinking", "data": "D"},
    {"type": "text", "text": "Well."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
]


@pytest.mark.parametrize("lost", [None, 0, 1, 2, 3])
def test_a_lost_block_is_told(lost: int | None, tmp_path: Path) -> None:
    case = case_of(
        tmp_path,
        {
            "protocol": "anthropic.messages",
            "model": "m-1",
            "response": {"status": 200, "body": {"content": ANTHROPIC_BLOCKS}},
            "expect": {"ok": True},
        },
    )
    sent = [block for place, block in enumerate(ANTHROPIC_BLOCKS) if place != lost]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "far"}
    messages = [{"role": "assistant", "content": sent}, {"role": "user", "content": [result]}]
    assert bool(state_faults(case, {"messages": messages})) == (lost is not None)


RESPONSES_ITEMS = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E"},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"},
]


@pytest.mark.parametrize("lost", [None, 0, 1, 2])
def test_a_lost_item_is_told(lost: int | None, tmp_path: Path) -> None:
    case = case_of(
        tmp_path,
        {
            "protocol": "openai.responses",
            "model": "m-1",
            "response": {"status": 200, "body": {"output": RESPONSES_ITEMS}},
            "expect": {"ok": True},
        },
    )
    result = {"type": "function_call_output", "call_id": "call_1", "output": "far"}
    sent = [item for place, item in enumerate([*RESPONSES_ITEMS, result]) if place != lost]
    assert bool(state_faults(case, {"input": sent})) == (lost is not None)
