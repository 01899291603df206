"""The items of a streamed answer, as far as they are written, and which of them an event means.

It must not know what is handed out of them. Servers differ in what they number: some leave out the
index of an item, some count all items as the first, and some make up new ids for one item all the
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aether.extensions.llm._wire.openai_responses.items import CALL_ARGUMENTS, Item, is_commentary

__all__ = ["Slot", "Slots"]

_HOLDERS = {
    "text": ("message",),
    "refusal": ("message",),
    "summary": ("reasoning",),
    "reasoning": ("reasoning",),
    "arguments": tuple(CALL_ARGUMENTS),
}
"""The types of items that hold each kind of text."""


class Slot:
    """One item. What is said of it is kept by kind and place until the item comes as a whole."""

    __slots__ = ("call", "commentary", "done", "item", "left_out", "said", "thought", "written")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.commentary = is_commentary(item)
        self.done = False
        self.written = False
        """Whether the arguments of a call were told as a whole, though the item was not."""
        self.left_out = False
        """Whether the whole answer has other items, but not this one."""
        self.said: dict[tuple[str, int], list[str]] = {}
        self.call: int | None = None
        """Which of the tool calls it is, once it was announced."""
        self.thought = ""
        """`summary` or `reasoning`: of an item that tells both, the first that came is shown."""

    @property
    def type(self) -> Any:
        return self.item.get("type")

    def text(self, kind: str, place: int | None = None) -> str:
        """What was said of that kind, in one place or in all."""
        return "".join(
            "".join(said)
            for (name, where), said in self.said.items()
            if name == kind and place in (None, where)
        )

    def last_place(self, kind: str) -> int:
        """Where the latest of that kind was said."""
        return max((place for name, place in self.said if name == kind), default=0)

    def whole(self) -> Item | None:
        """The item; `None` for one that was never completed, and must not go back as it is."""
        if self.done:
            return self.item
        if self.type in CALL_ARGUMENTS and self.call is not None:
            field = CALL_ARGUMENTS[self.type]
            given = self.item.get(field)
            arguments = self.text("arguments") or (given if isinstance(given, str) else "")
            made = {**self.item, field: arguments}
            if self.written or (arguments and not self.left_out):
                made.pop("status", None)  # it is where it began: what became of it was not said
            else:
                made["status"] = "in_progress"
            return made
        if self.type == "message":
            refusal = self.text("refusal")
            content: list[Item] = [{"type": "output_text", "text": self.text("text")}]
            if refusal:
                content.append({"type": "refusal", "refusal": refusal})
            return {**self.item, "content": content}
        return None


class Slots:
    """The items in their order."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []
        self._by_index: dict[int, Slot] = {}
        self._by_id: dict[str, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def begin(self, item: Item, event: Item) -> Slot:
        """The slot of an item that an event begins; the same if it was begun before."""
        known = self._known(item.get("id"), {}, (item.get("type"),))
        return known or self._open(item, event)

    def of_item(self, item: Item, event: Item) -> Slot:
        """The slot of a whole item; a new one if it was not begun before."""
        return self._known(item.get("id"), event, (item.get("type"),)) or self._open(item, event)

    def of_text(self, kind: str, event: Item) -> Slot | None:
        """The slot that a text belongs to. Some servers begin an item with its first text; `None`
        for the arguments of a call that was not begun, as nobody knows of what.
        """
        holders = _HOLDERS[kind]
        known = self._known(event.get("item_id"), event, holders)
        if known is not None:
            return known
        if "output_index" not in event and self._slots and self._slots[-1].type in holders:
            return self._slots[-1]
        if kind == "arguments":
            return None
        return self._open({"type": holders[0]}, event)

    def of_answer(self, items: list[Item]) -> list[tuple[Slot, Item]]:
        """The items of the whole answer, each with its slot: that of its id, else the next one of
        its type, else a new one. Their order counts from now on.
        """
        streamed, paired = list(self._slots), []
        for item in items:
            alike = [slot for slot in streamed if slot.type == item.get("type")]
            same = (slot for slot in alike if slot.item.get("id") == item.get("id"))
            slot = next(same, None) or (alike[0] if alike else None)
            if slot is None:
                slot = self._open(item, {})
            else:
                streamed.remove(slot)
            paired.append((slot, item))
        for slot in streamed:
            slot.left_out = bool(items)
        self._slots = [*(slot for slot, _ in paired), *streamed]
        return paired

    def _open(self, item: Item, event: Item) -> Slot:
        slot = Slot(item)
        self._slots.append(slot)
        index, item_id = event.get("output_index"), item.get("id")
        if type(index) is int:
            self._by_index[index] = slot
        if isinstance(item_id, str) and item_id:
            self._by_id[item_id] = slot
        return slot

    def _known(self, item_id: Any, event: Item, types: tuple[Any, ...]) -> Slot | None:
        index = event.get("output_index")
        slots = (
            self._by_id.get(item_id) if isinstance(item_id, str) else None,
            self._by_index.get(index) if type(index) is int else None,
        )
        return next((slot for slot in slots if slot is not None and slot.type in types), None)
