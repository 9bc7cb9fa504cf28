"""Scenes around parties, presents, dinners and good news."""

from __future__ import annotations

from jaxft.data.dialogues.talk import Talk
from jaxft.data.dialogues.words import CITIES, MONTHS, listed

# (the celebration, its tasks as "I'll ...")
PARTIES = (
    ("the farewell party for {c}", ("bake a cake", "buy the drinks", "decorate the room")),
    ("{c}'s birthday party", ("bake the cake", "choose the music", "buy the balloons")),
    ("the barbecue at {c}'s place", ("make the salads", "buy the sausages", "bring the charcoal")),
    ("the street festival", ("borrow the tables", "print the posters", "organise the games")),
    ("the welcome dinner for {c}", ("cook the curry", "buy the wine", "set the table")),
    ("the school fair", ("bake the waffles", "sell the tickets", "paint the signs")),
    ("the office lunch", ("order the sandwiches", "make the coffee", "bring the plates")),
    ("the housewarming at {c}'s flat", ("prepare the snacks", "buy the flowers", "bring the loudspeakers")),
)
OBSTACLES = (
    ("I have no time for that this week", "{x} has no time for it"),
    ("I hurt my back", "{x} hurt {x.his} back"),
    ("I have guests until then", "{x} has guests until then"),
    ("I work late every day this week", "{x} works late every day"),
    ("I'm really bad at that", "{x} is bad at it"),
    ("my flat is full of boxes", "{x}'s flat is full of boxes"),
    ("I did exactly that last time", "{x} did it last time"),
    ("I'm broke until next month", "{x} is broke until next month"),
)


def party(t: Talk) -> str:
    event, tasks = t.pick(PARTIES)
    first, second, third = t.rng.sample(tasks, 3)
    said, told = t.pick(OBSTACLES)
    t.set(event=event.format(c=t.c), first=first, second=second, third=third, said=said, told=told.format(x=t.b))
    t.days("day", "wrong")
    t.greet()
    t.play("""
    a: We still have to share the work for {event}. It's on {wrong}, isn't it? | Who does what for {event}? It's already
       on {wrong}. | Let's plan {event}. There isn't much time until {wrong}.
    b: It's on {day}, not {wrong}, but yes, we should start. | No, it was moved to {day}. Still, we should get going. |
       Not {wrong}, it's {day}. What is there to do?
    a: Right. Could you {first}? Then I'll {second}. | Ah, good. I thought you could {first} and I {second}. | My
       mistake. If you {first}, I can {second}.
    b: Difficult, {said}. Can we swap? | Hmm, {said}. I'd rather {second}, if you don't mind. | To be honest, {said}.
       Could we do it the other way round?
    a: Fine with me, then we swap. | All right, I'll take that one and you take mine. | No problem, we swap.
    b: Thanks. And somebody has to {third}. | Great. What about the rest, who will {third}?
    """)
    if t.chance(0.5):
        t.play("""
        a: I can do that too, I have time. | I'll do that as well.
        """)
        t.set(first=f"{first} and {third}")
    else:
        t.play("""
        a: Could you do that as well? | I can't manage more. Would you?
        b: Yes, no problem. | All right, I'll do both.
        """)
        t.set(second=f"{second} and {third}")
    if t.chance(0.4):
        t.part()
    return t.tell("""{a} and {b} are preparing {event} on {day}. {a} will {first}, because {told}, and {b} will
                  {second}.""")


GIFTS = (
    ("a cookbook", "never cooks"),
    ("a plant", "has no room for plants"),
    ("a scarf", "got one last year"),
    ("a concert ticket", "does not like crowds"),
    ("a bottle of wine", "does not drink"),
    ("a board game", "finds games boring"),
    ("a coffee machine", "only drinks tea"),
    ("a book voucher", "still has an old one"),
    ("a picture frame", "has no free wall left"),
    ("a bread knife", "already has three"),
    ("a puzzle", "has no patience for that"),
    ("a pair of headphones", "just bought some"),
    ("a box of chocolates", "is allergic to nuts"),
    ("a blanket", "is always too warm"),
)
FEASTS = listed("birthday, retirement, wedding, graduation, new flat, promotion, anniversary, new baby")


def gift(t: Talk) -> str:
    (idea, why), (second, why_second), (final, _) = t.rng.sample(GIFTS, 3)
    t.set(idea=idea, why=why, second=second, why_second=why_second, final=final, for_what=t.pick(FEASTS))
    t.set(price=t.pick(("ten", "fifteen", "twenty", "twenty-five", "thirty")))
    t.days("day", "other")
    t.greet(chat=0.5)
    t.play("""
    a: What do we give {c} for {c.his} {for_what}? Maybe {idea}? | {c}'s {for_what} is coming up. I thought of {idea}. |
       We need a present for {c}'s {for_what}. How about {idea}?
    b: I don't think so, {c} {why}. | Better not, {c.he} {why}. | {c}? {c.He} {why}, remember?
    a: Hmm. And {second}? | Oh right. Then {second}, perhaps? | I forgot. What about {second}?
    b: {c.He} {why_second}. But {final} would be nice. | No, {c.he} {why_second}. I'd go for {final}. | Not that either,
       {c.he} {why_second}. Why not {final}?
    a: Yes, {c.he} will love that! Do you have time to buy it? | Perfect. Who goes to the shop? | That's the best idea
       so far. Can you get it?
    """)
    if t.chance(0.5):
        t.play("""
        b: I can go on {day}. It's {price} euros each. | I'm in town on {day} anyway. We'd each pay {price} euros.
        a: Good, I'll give you the money on {other}. | Fine, and I'll write the card.
        """)
        t.set(buyer=t.b)
    else:
        t.play("""
        b: I'm away until {other}. Could you? It's {price} euros each. | Not before {other}, could you do it? It would
           be {price} euros for each of us.
        a: Yes, I'll buy it on {day}. | All right, I'll go on {day} after work.
        """)
        t.set(buyer=t.a)
    if t.chance(0.5):
        t.part()
    return t.tell("""{a} and {b} will give {c} {final} for {c.his} {for_what} instead of {idea}, because {c} {why}.
                  {buyer} will buy it on {day}, and each of them pays {price} euros.""")


# (a dish, somebody's objection, the dish instead)
MENUS = (
    ("roast chicken", "does not eat meat", "mushroom risotto"),
    ("a cheese fondue", "cannot eat dairy", "a vegetable curry"),
    ("fish soup", "is allergic to fish", "tomato soup"),
    ("a spicy chilli", "has a sensitive stomach", "potato gratin"),
    ("pancakes", "is allergic to eggs", "rice with lentils"),
    ("spaghetti", "cannot eat wheat", "stuffed peppers"),
    ("pork ribs", "does not eat pork", "lamb stew"),
    ("satay noodles", "is allergic to peanuts", "fried rice"),
    ("lasagne", "is on a diet", "a big salad"),
)
DESSERTS = listed("""
    an apple pie, some ice cream, a fruit salad, a chocolate cake, a lemon tart, some biscuits
""")


def menu(t: Talk) -> str:
    dish, why, instead = t.pick(MENUS)
    t.set(dish=dish, why=why, instead=instead, dessert=t.pick(DESSERTS))
    t.days("day")
    t.hours("hour", "late")
    t.greet()
    t.play("""
    a: I'm cooking on {day}, would you and {c} like to come? I want to make {dish}. | Come to dinner on {day}, and bring
       {c}! There will be {dish}.
    b: How lovely! But {c} {why}, did you know? | We'd love to. It's just that {c} {why}. | Gladly! One thing, though:
       {c} {why}.
    a: Oh, I had no idea. Then I'll make {instead}. | Thanks for telling me. How about {instead}? | No problem, I can
       also do {instead}.
    b: That sounds delicious. When shall we be there? | {c.He} will be happy. What time?
    a: At {hour}. No, wait, I work until then. Make it {late}. | {hour}? Hmm, better {late}, I have to shop first.
    b: Good, {late}. I'll bring {dessert} for afterwards. | Fine. We'll take care of the dessert, I'll make {dessert}.
    a: Wonderful, I never manage to bake anything. | You don't have to, but thank you! | Perfect, then I won't have to
       worry about that.
    """)
    if t.chance(0.5):
        t.play("""
        b: See you on {day}! | We're looking forward to it.
        """)
    return t.tell("""{a} is cooking dinner for {b} and {c} on {day} at {late}. {a.He} will make {instead} instead of
                  {dish}, because {c} {why}, and {b} will bring {dessert}.""")


# (the news said, told with its month, what help is needed)
NEWS = (
    ("I got a job at a museum in {city}", "got a job at a museum in {city} and starts in {month}", "find a flat"),
    ("I'm moving to {city} to study law", "is moving to {city} in {month} to study law", "pack the boxes"),
    ("I won a scholarship in {city}", "won a scholarship in {city} that begins in {month}", "fill in the forms"),
    ("I'm opening a café in {city}", "is opening a café in {city} in {month}", "paint the walls"),
    ("I bought a house near {city}", "bought a house near {city} and moves in in {month}", "renovate the kitchen"),
    (
        "I'll play in the orchestra of {city}",
        "will play in the orchestra of {city} from {month} on",
        "find a good teacher",
    ),
    ("I'll be teaching in {city}", "will be teaching in {city} from {month} on", "prepare the lessons"),
    ("I was accepted at a hospital in {city}", "was accepted at a hospital in {city} from {month} on", "sell the car"),
    ("I'm going to marry {c} in {city}", "is going to marry {c} in {city} in {month}", "write the invitations"),
    ("I'll join the rowing team in {city}", "will join the rowing team in {city} in {month}", "rent out the flat"),
)


def news(t: Talk) -> str:
    said, told, help_with = t.pick(NEWS)
    city = t.pick(CITIES)
    month, wrong = t.rng.sample(MONTHS, 2)
    t.set(said=said.format(city=city, c=t.c), told=told.format(city=city, c=t.c, month=month), month=month, wrong=wrong)
    t.set(help_with=help_with)
    t.days("day", "other")
    t.hours("hour")
    t.greet(chat=0.4)
    t.play("""
    a: I have big news: {said}! | You'll never guess what happened. {said}! | Are you sitting down? {said}!
    b: Congratulations! When does it start, in {wrong}? | That's fantastic! Is it still {wrong}, as you hoped?
    a: No, already in {month}. I'm a bit nervous. | It was supposed to be {wrong}, but now it's {month}.
    b: You'll be great. Can I help with anything? | Don't be afraid. Do you need a hand?
    a: Yes, could you help me {help_with}? | Actually, I'd be glad if somebody helped me {help_with}.
    b: Of course I will. But first we have to celebrate! On {other}? | With pleasure. And we'll celebrate, won't we? How
       about {other}?
    a: On {other} I'm seeing my parents. {day}? | I'd prefer {day}, I'm already invited on {other}.
    b: {day} at {hour}, at my place. I'll cook. | Fine, come to my place on {day} at {hour}.
    """)
    if t.chance(0.6):
        t.play("""
        a: I can't wait! | You're a true friend. | I'll bring something to drink.
        """)
    return t.tell("""{a} {told}. {b} will help {a.him} {help_with}, and they will celebrate at {b}'s place on {day} at
                  {hour}.""")


OCCASIONS = (party, gift, menu, news)
