"""Scenes in which somebody asks for a favour."""

from __future__ import annotations

from jaxft.data.dialogues.talk import Talk
from jaxft.data.dialogues.words import CITIES, listed

# (the thing, what it is needed for, why the owner wants it back: said and told)
ITEMS = (
    ("tent", "a weekend at the lake", "I'm going camping myself", "{x} is going camping {x.self}"),
    ("drill", "some new shelves", "I have to hang up a lamp", "{x} has to hang up a lamp"),
    ("bicycle", "a tour along the river", "I ride it to work", "{x} rides it to work"),
    ("suitcase", "a business trip", "I'm flying to my sister", "{x} is flying to {x.his} sister"),
    ("projector", "a talk at school", "we're having a film night", "{x} is having a film night"),
    ("sewing machine", "a carnival costume", "I'm making curtains", "{x} is making curtains"),
    ("ladder", "the gutters", "I'm picking cherries", "{x} is picking cherries"),
    (
        "camera",
        "a cousin's wedding",
        "I'm taking pictures for the newspaper",
        "{x} is taking pictures for the newspaper",
    ),
    ("van", "a move across town", "I'm collecting a sofa", "{x} is collecting a sofa"),
    ("lawnmower", "a neglected garden", "my own grass is growing fast", "{x}'s own grass is growing fast"),
    ("guitar", "a school concert", "I have a lesson", "{x} has a lesson"),
    ("cake tin", "a birthday cake", "I'm baking for the school fair", "{x} is baking for the school fair"),
    ("sleeping bag", "a hike in the mountains", "my son needs it", "{x}'s son needs it"),
    ("dictionary", "an important letter", "I'm translating a text", "{x} is translating a text"),
)


def borrow(t: Talk) -> str:
    item, use, said, told = t.pick(ITEMS)
    himself = {"he": "himself", "she": "herself"}[t.b.he]
    t.set(item=item, use=use, said=said, told=told.replace("{x.self}", himself).format(x=t.b))
    t.days("day", "new_day", "back", ordered=True)
    t.hours("hour", "late")
    t.greet()
    t.play("""
    a: Could you lend me your {item}? I need it for {use}. | I have a favour to ask. May I borrow your {item} for {use}?
       | You have a {item}, don't you? I could use it for {use}.
    b: Of course. {c} has it at the moment, but {c.he} is bringing it back on {day}. | Sure, though {c} still has it
       until {day}. | Yes, as soon as {c} returns it, that should be on {day}.
    a: I'm not here on {day}. May I come on {new_day} at {hour}? | On {day} I can't. Would {new_day} be all right,
       around {hour}? | Then I'd pick it up on {new_day}, at {hour}?
    b: I'm only home from {late}, come then. | {new_day} is fine, but not before {late}. | Make it {late}, I have to
       work.
    a: Okay. How long can I keep it? | Good. And when do you need it again?
    b: Until {back}, because {said} after that. | I need it back by {back}, {said}.
    a: No problem, you'll have it in time. | You can count on me. | Promised. I'll even clean it.
    """)
    if t.chance(0.6):
        t.play("""
        b: I know. Have fun! | Good luck with it. | Just be careful with it, it's old.
        """)
    return t.tell("""{a} will borrow {b}'s {item} for {use} and pick it up on {new_day} at {late}. {a.He} has to return
                  it by {back}, because {told}.""")


STATIONS = listed("""
    the taxi stand, the ice cream shop, the bicycle racks, the north exit, the ticket machines, the flower shop, the
    car park behind the station, the fountain
""")
DELAYS = (
    ("there's a tree on the track", "there is a tree on the track"),
    ("the engine broke down", "the engine broke down"),
    ("the driver is ill", "the driver is ill"),
    ("there's a strike", "there is a strike"),
    ("I missed my connection", "{x} missed {x.his} connection"),
    ("they closed a bridge", "a bridge is closed"),
    ("it's snowing in the mountains", "it is snowing in the mountains"),
    ("I forgot my bag and had to go back", "{x} forgot {x.his} bag and had to go back"),
)


def pick_up(t: Talk) -> str:
    said, told = t.pick(DELAYS)
    place, other = t.rng.sample(STATIONS, 2)
    t.set(said=said, told=told.format(x=t.a), place=place, other=other, city=t.pick(CITIES))
    t.set(vehicle=t.pick(("train", "bus")))
    t.hours("hour", "late")
    t.greet(chat=0.4)
    t.play("""
    a: I'm on the {vehicle} from {city}. Can you still collect me at {hour}? | My {vehicle} from {city} is supposed to
       arrive at {hour}. Are you coming to the station?
    b: Yes, I'll be there at {hour}. I'll wait at {place}. | Of course, as we said. Come to {place}.
    a: There's a problem, we've stopped. I think {said}. | Hold on, they're just announcing something. It seems {said}.
    b: Oh no! How late will you be? | Poor you. When will you get here? | Not again! So when do you arrive?
    a: Probably at {late}. Is that too late for you? | They say at {late}. I can also take a taxi.
    b: No, {late} is fine, I'll eat something first. But {place} will be closed then, so come to {other}. | Don't worry,
       I'll come at {late}. Only, I can't park near {place} in the evening. Let's meet at {other}.
    a: All right, {other}. I have two heavy suitcases. | Okay, I'll find it. I'm starving, by the way. | Got it. You're
       the best!
    b: I'll manage, I've got the big car. | There's soup at home. | See you later, and try to sleep a little.
    """)
    return t.tell("""{b} will pick {a} up at {other} at {late} instead of {hour}. {a}'s {vehicle} from {city} is late,
                  because {told}.""")


def shift(t: Talk) -> str:
    t.set(kind=t.pick(("morning", "late", "night", "weekend", "early")))
    t.set(
        where=t.pick(("hospital", "bakery", "library", "call centre", "museum", "hotel", "pharmacy", "petrol station"))
    )
    t.days("day", "wrong", "back")
    t.busy("excuse", "reason", t.a)
    t.busy("excuse_b", "reason_b", t.b)
    t.greet()
    t.play("""
    a: Could you do my {kind} shift at the {where} on {day}? {excuse}. | I have a problem with my {kind} shift at the
       {where} on {day}: {excuse}. Could you take it?
    b: On {day}? Let me look at the plan. | Hm, when exactly? I'd have to check. | You're lucky, I think I'm free.
    a: I'd take one of yours in return, perhaps on {wrong}? | I could work for you on {wrong}. | Of course I'd give you
       something back. Your shift on {wrong}?
    b: {wrong} is no use to me. But {excuse_b} on {back}. | Not {wrong}, I like that one. Rather {back}, because
       {excuse_b}. | I'd prefer {back}, {excuse_b} that day.
    a: {back} is fine, I have nothing planned. | Okay, then {back}. | Good, I'll take that one.
    b: Then it's a deal. Will you tell the boss? | Agreed. Somebody should tell the manager.
    """)
    if t.chance(0.5):
        t.play("""
        a: Yes, I'll write to her right now. | I'm seeing her in an hour, I'll tell her.
        """)
        t.set(teller=t.a)
    else:
        t.play("""
        a: Could you? She's annoyed with me. | You have the office next to hers, could you?
        b: Fine, I'll do it. | Okay, leave it to me.
        """)
        t.set(teller=t.b)
    return t.tell("""{b} will take {a}'s {kind} shift at the {where} on {day}, because {reason}. In return {a} will work
                  for {b} on {back}, and {teller} will tell the boss.""")


PETS = listed("""
    cat, dog, rabbit, parrot, tortoise, hamster, goldfish, two canaries, guinea pig, old cat
""")
STAYS = listed("""
    a conference, a wedding, a funeral, a language course, a job interview, a family visit, an operation
""")
CARE = (
    ("needs a pill every morning", "give it a pill every morning"),
    ("only eats in the evening", "feed it in the evening"),
    ("has to be kept inside", "keep it inside"),
    ("needs fresh water every day", "change the water every day"),
    ("must not get any sweets", "keep sweets away from it"),
    ("likes the radio on", "leave the radio on"),
)


def pet(t: Talk) -> str:
    needs, care = t.pick(CARE)
    pets = t.pick(PETS)
    if pets == "two canaries":
        needs = (
            needs.replace("needs", "need").replace("eats", "eat").replace("has to", "have to").replace("likes", "like")
        )
        care = care.replace(" it", " them")
    t.set(pet=pets, city=t.pick(CITIES), stay=t.pick(STAYS), needs=needs, care=care)
    t.days("first", "wrong", "last", ordered=True)
    t.greet()
    t.play("""
    a: I'm going to {city} for {stay}. Could you look after my {pet}? | Would you take care of my {pet} while I'm in
       {city}? I have {stay} there.
    b: I think so. When are you leaving? | I'd be happy to. From when to when? | Sure! How long will you be away?
    a: From {first} to {wrong}. | I leave on {first} and come back on {wrong}.
    b: No problem. Is there anything I should know? | That's possible. Anything special?
    a: My {pet} {needs}. Oh, and I was wrong, I'm only back on {last}. | Just one thing, my {pet} {needs}. And sorry, I
       just see my return is on {last}.
    b: That's all right too. How do I get the key? | Even better, I enjoy the company. And the key?
    """)
    keeper = t.pick(("with {c}", "under the blue flowerpot", "in your letter box"))
    t.set(said=keeper.format(c=t.c), told=keeper.replace("your", "{b}'s").format(b=t.b, c=t.c))
    t.play("""
    a: I'll leave it {said}. | You'll find it {said}.
    """)
    if t.chance(0.6):
        t.play("""
        b: Good. Have a safe journey! | Fine, don't worry about anything.
        """)
    return t.tell("""{b} will look after {a}'s {pet} from {first} to {last} while {a} is in {city} for {stay}. {b.He}
                  should {care}, and {a} will leave the key {told}.""")


FAVOURS = (borrow, pick_up, shift, pet)
