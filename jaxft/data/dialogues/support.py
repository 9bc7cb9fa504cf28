"""Conversations between customers and a shop's support, made up here: orders, refunds, deliveries and accounts.

A case draws a customer, an order and what the shop's records say; the records decide what the support may promise, so
that a good answer has to read them. Customers write in different ways, some of them add a question of another kind.

>>> example = support(seed=0, count=1)[0]
>>> sorted(example), example["messages"][0]["role"]
(['case', 'facts', 'id', 'messages', 'shop'], 'user')

Example `i` depends on (seed, i) alone. No text of others is used.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jaxft.data.dialogues.words import CITIES, DAYS, MEN, MONTHS, WOMEN, listed

T = TypeVar("T")

SHOPS = listed("Larchwood, Brightmill, Kestrel & Co, Northlight, Papaya Home, Tinderbox, Fernway, Quayside, Oldgate")
ITEMS = listed("""
    desk lamp, rain jacket, kettle, backpack, pair of boots, coffee grinder, wool blanket, headset, bicycle pump,
    picture frame, office chair, frying pan, alarm clock, garden hose, yoga mat, suitcase, tent, keyboard, rug, toaster
""")
CARRIERS = listed("Swiftpost, Parcelway, Bluebox, CityRider")
FAULTS = listed("arrived damaged, has a part missing, came in the wrong colour, looks used, is not the one I ordered")
OPENINGS = ("", "Hello, ", "Hi, ", "Good morning, ", "Hello there, ", "Hey, ")
THANKS = (
    ("Thank you, that's all.", "You're welcome, {name}. Have a good day!"),
    ("Great, thanks for the quick help.", "My pleasure. Goodbye, {name}!"),
    ("All right, thanks.", "Thank you for writing to {shop}. Take care!"),
    ("Perfect, that answers it.", "Glad I could help, {name}."),
    ("Okay. Bye!", "Goodbye, and thank you for your patience."),
)
ASIDES = (
    ("One more thing: when can I call you?", "Our phones are answered from {opens} to {closes}, Monday to Friday."),
    ("And do you have a shop in {city}?", "No, I'm afraid we only sell online."),
    ("By the way, can I still use my voucher?", "Yes, vouchers of {shop} are valid for {years} years."),
    ("Can I get an invoice as well?", "Of course. I have sent the invoice for order {order} to your e-mail address."),
)


class Case:
    """The words of one conversation, and its turns so far."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        month = self.pick(MONTHS)
        self.words: dict[str, Any] = {
            "shop": self.pick(SHOPS),
            "name": self.pick(WOMEN + MEN),
            "item": self.pick(ITEMS),
            "order": f"{rng.choice('ABCDEFGH')}{rng.randrange(10000, 99999)}",
            "price": f"{rng.randrange(9, 180)}.{rng.choice(('00', '50', '90', '95'))}",
            "carrier": self.pick(CARRIERS),
            "date": f"{rng.randrange(1, 29)} {month}",
            "day": self.pick(DAYS),
            "city": self.pick(CITIES),
            "days": rng.randrange(3, 9),
            "opens": self.pick(("eight", "nine", "half past nine")),
            "closes": self.pick(("five", "six", "half past six")),
            "years": self.pick(("two", "three", "five")),
        }
        self.facts: list[str] = []
        self.messages: list[dict[str, str]] = []
        self.know(
            "Customer: {name}. Order {order}: one {item}, {price} euros, ordered on {date}, to go with {carrier}.",
            "Phones: {opens} to {closes}, Monday to Friday. Vouchers: {years} years. Sales: online only.",
        )

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of `choices`."""
        return self.rng.choice(choices)

    def know(self, *facts: str) -> None:
        """Add what the shop's records say."""
        self.facts += [self._filled(fact) for fact in facts]

    def ask(self, *variants: str) -> None:
        """Let the customer say one of the variants."""
        opening = self.pick(OPENINGS) if not self.messages else ""
        text = self._filled(self.pick(variants))
        self._say("user", opening + (text[0].lower() + text[1:] if opening and not text.startswith("I") else text))

    def reply(self, *variants: str) -> None:
        """Let the support say one of the variants."""
        self._say("assistant", self._filled(self.pick(variants)))

    def _filled(self, text: str) -> str:
        text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.format(**self.words).split()))
        return text[0].upper() + text[1:]

    def _say(self, role: str, text: str) -> None:
        self.messages.append({"role": role, "content": text})


def late(c: Case) -> None:
    sent = c.rng.random() < 0.6
    if sent:
        c.know("It was handed to {carrier} and is due on {day}.")
    else:
        c.know("It has not been sent: the {item} is out of stock for about {days} days. It can be cancelled.")
    c.ask("Where is my {item}?", "I ordered a {item} on {date} and it still isn't here.", "My parcel is late again!")
    c.reply("I'm sorry about the wait. What is your order number?", "Let me look. Could you give me the order number?")
    c.ask("It's {order}.", "{order}, I think.", "The mail says {order}.")
    if sent:
        c.reply("Thank you, {name}. {carrier} has your {item}, and it is due on {day}.",
                "I found it: your {item} is with {carrier} and should reach you on {day}.")  # fmt: skip
    else:
        c.reply("I see, {name}. The {item} is out of stock and can only be sent in about {days} days. I'm sorry.",
                "Your {item} has not been sent yet, because it is out of stock for about {days} days.")  # fmt: skip
        c.ask("That's too long. Cancel it, please.", "Then I don't want it any more.")
        c.reply("Done. Order {order} is cancelled, and you get {price} euros back.",
                "I have cancelled it. The {price} euros will be returned to you.")  # fmt: skip


def refund(c: Case) -> None:
    inside = c.rng.random() < 0.6
    c.words["ago"] = c.rng.randrange(4, 29) if inside else c.rng.randrange(34, 90)
    c.know("Goods may be sent back within 30 days.", "The {item} was received {ago} days ago.")
    c.ask("I'd like to send back a {item}.", "Can I return the {item} I bought?", "The {item} is not for me. Refund?")
    if inside:
        c.reply("Certainly, {name}. You got it {ago} days ago, so the 30 days are not over. Is it unused?",
                "Yes, you have 30 days and only {ago} have passed. Has it been used?")  # fmt: skip
        c.ask("I only opened the box.", "No, it's as good as new.", "I tried it once.")
        c.reply("That is fine. I'm sending you a label; when it is back, we return {price} euros.",
                "Good. Use the label in your e-mail, and you will get the {price} euros when we have it.")  # fmt: skip
    else:
        c.reply("I'm sorry, {name}, but that was {ago} days ago, and we take things back for 30 days only.",
                "Unfortunately the 30 days are over: you received it {ago} days ago.")  # fmt: skip
        c.ask("Can't you make an exception?", "But it is still in its box!")
        c.reply("I understand, but I may not do that. If it is faulty, tell me, because then other rules apply.",
                "I'm afraid not. Only if something were broken could I do more for you.")  # fmt: skip


def faulty(c: Case) -> None:
    spare = c.rng.random() < 0.5
    c.words["fault"] = c.pick(FAULTS)
    c.know("Faulty goods are replaced, or else refunded.")
    c.know("There are more of it in stock." if spare else "There is none left in stock.")
    c.ask(
        "The {item} you sent me {fault}.", "I'm not happy: my new {item} {fault}.", "What do I do if a {item} {fault}?"
    )
    c.reply("I'm sorry to hear that, {name}. Is this about order {order}?",
            "That should not happen. Do you mean the {item} of order {order}?")  # fmt: skip
    c.ask("Yes.", "Exactly.", "Yes, that one.")
    if spare:
        c.reply("Then I'll send you a new one today, and you need not pay for it.",
                "A replacement leaves our house today. There is nothing to pay.")  # fmt: skip
    else:
        c.reply("We have none left, so I'm returning the {price} euros to you.",
                "I would replace it, but it is sold out. You get your {price} euros back instead.")  # fmt: skip
    c.ask("And the broken one?", "Do I have to send this one back?")
    c.reply("Please send it back with the label that comes by e-mail.", "Yes, please. The label is in your inbox.")


def address(c: Case) -> None:
    packed = c.rng.random() < 0.4
    c.words["street"] = f"{c.rng.randrange(2, 98)} {c.pick(('Mill', 'Park', 'Station', 'Harbour', 'Garden'))} Street"
    c.know("The parcel goes to {city}.")
    c.know("It is packed already: its address is fixed." if packed else "It is not packed: its address may be changed.")
    c.ask("I've moved. Can you change the address of order {order}?", "Order {order} is going to the wrong address!")
    if packed:
        c.reply("I'm sorry, {name}: order {order} is packed, and its address cannot be changed any more.",
                "It is too late for that, I'm afraid. The parcel is packed.")  # fmt: skip
        c.ask("What can I do then?", "So it will go to my old flat in {city}?")
        c.reply("Ask {carrier} to forward it: they send you a link when they have the parcel.",
                "{carrier} will write to you, and there you can have it sent on.")  # fmt: skip
    else:
        c.reply("Yes, it is not packed yet. What is the new address?", "That is still possible. Where shall it go?")
        c.ask("{street}, the town stays {city}.", "To {street}, {city}, please.")
        c.reply("Thank you. Order {order} now goes to {street}, {city}.", "I've changed it to {street}, {city}.")


def account(c: Case) -> None:
    locked = c.rng.random() < 0.5
    c.know("The account is locked after five wrong passwords; support may unlock it." if locked else
           "The account is open; its e-mail address is outdated, and only the customer can change it.")  # fmt: skip
    c.ask("I can't log in.", "Your site doesn't let me into my account.", "My password doesn't work any more.")
    c.reply("Let me see. Under which name is the account?", "I'll have a look. May I have your name?")
    c.ask("{name}.", "It's {name}.", "My name is {name}.")
    if locked:
        c.reply("Thank you, {name}. It was locked after five wrong passwords. Shall I unlock it?",
                "I see: five wrong passwords, so it is locked. Do you want me to open it?")  # fmt: skip
        c.ask("Yes, please.", "Please do.")
        c.reply("It is open again. Please set a new password when you log in.", "Done. Choose a new password now.")
    else:
        c.reply("Your account is open, {name}, but the e-mail address in it is outdated.",
                "It is not locked. I think the messages go to an old e-mail address.")  # fmt: skip
        c.ask("Can you change that for me?", "Then put in my new address.")
        c.reply("Only you can do that: follow 'My details' in your account.",
                "I'm not allowed to, but you can do it under 'My details'.")  # fmt: skip


CASES: tuple[Callable[[Case], None], ...] = (late, refund, faulty, address, account)


def support(seed: int, count: int) -> list[dict[str, Any]]:
    """Return `count` conversations: id, case, shop, facts (what the records say) and `messages` (role, content)."""
    return [_example(seed, i) for i in range(count)]


def _example(seed: int, i: int) -> dict[str, Any]:
    case = Case(random.Random(f"support/{seed}/{i}"))
    scene = case.pick(CASES)
    scene(case)
    for pairs, rate in ((ASIDES, 0.4), (THANKS, 0.6)):
        if case.rng.random() < rate:
            question, answer = case.pick(pairs)
            case.ask(question)
            case.reply(answer)
    facts = " ".join(case.facts)
    return {"id": f"support-{seed}-{i}", "case": scene.__name__, "shop": case.words["shop"], "facts": facts,
            "messages": case.messages}  # fmt: skip
