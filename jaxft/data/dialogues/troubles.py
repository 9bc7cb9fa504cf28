"""Scenes in which something is lost, broken, late or too loud."""

from __future__ import annotations

from jaxft.data.dialogues.talk import Talk
from jaxft.data.dialogues.words import EVENINGS, listed

THINGS = listed("""
    umbrella, wallet, scarf, phone charger, notebook, key ring, reading glasses, library book, bus pass, water
    bottle, lunch box, left glove, sketchbook, memory stick
""")
SPOTS = listed("""
    the bakery, the gym, the bank, the post office, the dentist's, the pharmacy, the hairdresser's, the market, the
    swimming pool, the town hall
""")
FOUND = (
    ("on the back seat of my car", "on the back seat of {b.his} car"),
    ("under my kitchen table", "under {b.his} kitchen table"),
    ("in the pocket of my coat", "in the pocket of {b.his} coat"),
    ("behind my sofa", "behind {b.his} sofa"),
    ("in my shopping bag", "in {b.his} shopping bag"),
    ("on the windowsill in my office", "on the windowsill in {b.his} office"),
    ("between my papers", "between {b.his} papers"),
)


def lost(t: Talk) -> str:
    said, told = t.pick(FOUND)
    spots = t.rng.sample(SPOTS, 2)
    t.set(thing=t.pick(THINGS), spot=spots[0], other=spots[1], said=said, told=told.format(b=t.b))
    t.days("day", "since", "wrong")
    t.hours("hour")
    t.greet(chat=0.5)
    t.play("""
    a: I can't find my {thing} anywhere. I've been looking since {since}. | Have you seen my {thing}? I've missed it
       since {since}.
    b: Where did you have it last? | When did you last see it? | Did you leave it somewhere in town?
    a: I thought at {spot}, but they haven't found anything. | Perhaps at {spot}. I called them, but no luck.
    b: And at {other}? We were there together. | Weren't you also at {other}? | You could ask at {other}.
    a: I asked there too. It's really annoying. | I've been there twice already. Nothing. | They sent me away, it isn't
       there.
    b: Wait, let me check. Here it is, {said}! | Hang on. You won't believe it, it's {said}! | One moment. Ha, I found
       it, {said}!
    a: What a relief! Can I get it on {wrong}? | I'm so glad! Shall I come by on {wrong}?
    """)
    if t.chance(0.5):
        t.play("""
        b: I'm away then. I'll bring it to you on {day} at {hour}. | No need, I'll pass your place on {day} at {hour}
           and bring it.
        """)
        t.set(how=t.tell("{b} will bring it to {a} on {day} at {hour}"))
    else:
        t.play("""
        b: I won't be in on {wrong}, but come on {day} at {hour}. | Better on {day}, I'm home from {hour}.
        a: Great, I'll be there at {hour}. | I'll ring the bell at {hour}, thank you!
        """)
        t.set(how=t.tell("{a} will collect it from {b} on {day} at {hour}"))
    return t.tell("""{a} is looking for {a.his} {thing}, which is not at {spot} or {other}. {b} finds it {told}, and
                  {how}.""")


# (trouble said and told, an idea and why not, a better idea)
WORRIES = (
    ("my laptop is terribly slow", "{x}'s laptop is slow", "buy a new one", "it is too expensive", "delete old files"),
    ("I can't sleep any more", "{x} cannot sleep", "take pills", "they cause headaches", "switch off the phone at ten"),
    ("my tomatoes are turning yellow", "{x}'s tomatoes are yellow", "water them", "the soil is wet", "give them shade"),
    ("my back hurts all day", "{x}'s back hurts", "see a doctor", "there is no free appointment", "try a higher desk"),
    ("my bike keeps squeaking", "{x}'s bike squeaks", "take it to a shop", "the shop is on holiday", "oil the chain"),
    ("I'm always broke", "{x} is always broke", "ask for a raise", "the boss has just said no", "note all expenses"),
    ("my son refuses to read", "{x}'s son refuses to read", "get a tutor", "he hates lessons", "start with comics"),
    ("my flat is freezing", "{x}'s flat is cold", "call the landlord", "he never answers", "seal the windows"),
    (
        "I'm nervous about my speech",
        "{x} is nervous about a speech",
        "cancel it",
        "it is too late",
        "rehearse it aloud",
    ),
    ("there are moths in my cupboard", "{x} has moths", "spray something", "it smells awful", "hang up some lavender"),
    ("my printer eats the paper", "{x}'s printer eats paper", "get it repaired", "it costs a lot", "clean the rollers"),
    ("I'm always late for work", "{x} is always late for work", "get up earlier", "the baby cries all night", "cycle"),
)


def advice(t: Talk) -> str:
    said, told, idea, why, better = t.pick(WORRIES)
    t.set(said=said, told=told.format(x=t.a), idea=idea, why=why, better=better)
    t.days("day", "wrong")
    t.hours("hour")
    t.greet()
    t.play("""
    a: I need your advice, {said}. | I don't know what to do, {said}. | You know about these things: {said}.
    b: Since when? | Oh dear, how long has that been going on? | Again? Tell me more.
    a: Since {wrong}, and it's getting worse. | It started last month. | For weeks now, I'm desperate.
    b: Then you should {idea}. | I would {idea}, if I were you. | Why don't you {idea}?
    a: I thought of that, but {why}. | That's no solution, {why}. | I can't, {why}.
    b: In that case, {better}. That helped my sister. | All right, then {better}, it costs nothing. | Well, you could
       also {better}. It worked for {c}.
    a: That sounds sensible. Would you help me? | I hadn't thought of that. Could you show me how?
    b: Yes, but not on {wrong}. I'll come on {day} at {hour}. | Gladly. I have time on {day}, say at {hour}?
    """)
    if t.chance(0.6):
        t.play("""
        a: You're a treasure, thank you. | Thanks, I'll make us some tea. | That would be great.
        """)
    return t.tell("""{told}. {b} first advises {a.him} to {idea}, but {why}, so {a} will {better}, and {b} will help on
                  {day} at {hour}.""")


NOISES = (
    ("play the drums", "drumming", "the baby wakes up", "{x}'s baby wakes up"),
    ("use the washing machine", "your washing machine", "my bedroom wall shakes", "{x}'s bedroom wall shakes"),
    ("practise the trumpet", "the trumpet", "I have to get up at four", "{x} has to get up at four"),
    ("listen to loud music", "your music", "I can't study for my exam", "{x} cannot study for {x.his} exam"),
    ("drill holes", "your drill", "my dog gets frightened", "{x}'s dog gets frightened"),
    ("let the dog bark", "your dog", "my father is ill", "{x}'s father is ill"),
    ("move furniture", "all that furniture", "my lamp nearly fell down", "{x}'s lamp nearly fell down"),
    ("sing", "your singing", "I work from home", "{x} works from home"),
)


def noise(t: Talk) -> str:
    do, what, said, told = t.pick(NOISES)
    t.set(do=do, what=what, said=said, told=told.format(x=t.a))
    t.hours("start", "end", "late", among=(*EVENINGS, "nine", "ten"))
    t.days("day", "other")
    t.greet(chat=0.4)
    t.play("""
    a: I live above you, and I need to talk about {what}. {said}. | It's about {what}, I'm afraid. {said}.
    b: Oh, I didn't know you could hear that. | Really? I'm sorry, nobody ever complained. | I see. Was it that bad?
    a: On {day} it went on past {late}. Could you stop earlier? | Yes, especially on {day}, after {late}. Could you find
       another time?
    b: I work in the daytime, so the evening is all I have. | The weekend would be an option, but I'm often away. | It's
       not easy for me either, I come home late.
    a: What if you only did it between {start} and {end}? I'm out then. | From {start} to {end} I'm never at home. Would
       that be enough?
    b: That's possible, except on {other}, when I'm away anyway. | Agreed, from {start} to {end} then. | Good idea. I'll
       keep to that.
    a: Thank you so much. I'll give you my number in case of trouble. | That helps a lot. I'll bring you some cake.
    """)
    if t.chance(0.6):
        t.play("""
        b: That's kind of you. | And sorry again! | No hard feelings.
        """)
    return t.tell("""{a} complains to {b} about the noise, because {told}. {b} agrees to {do} only between {start} and
                  {end}.""")


GOODS = (
    ("jacket", "the zip is broken"),
    ("kettle", "it leaks"),
    ("pair of boots", "the soles came off"),
    ("lamp", "it flickers"),
    ("toaster", "it burns everything"),
    ("backpack", "a strap is torn"),
    ("wristwatch", "it runs slow"),
    ("keyboard", "two keys are stuck"),
    ("mattress", "it is far too soft"),
    ("raincoat", "it lets the water in"),
    ("teapot", "the lid is cracked"),
    ("printer", "it makes strange noises"),
    ("desk chair", "one wheel is missing"),
    ("game console", "it does not start"),
)


def returns(t: Talk) -> str:
    thing, fault = t.pick(GOODS)
    t.staff("Clerk")
    t.set(thing=thing, fault=fault, colour=t.pick(("blue", "green", "black", "red", "grey", "white", "brown")))
    t.set(other=t.pick(("yellow", "silver", "purple", "orange", "dark blue")))
    t.days("bought", "day", "wrong")
    t.play("""
    a: Good morning. I bought this {colour} {thing} here on {bought}, and {fault}. | Hello, I have a complaint. It's
       about this {colour} {thing}. I got it on {bought}, and {fault}.
    b: I'm sorry to hear that. Do you have the receipt? | Oh, that shouldn't happen. May I see the receipt?
    a: Yes, here it is. I'd like a new one, please. | Here you are. Could I exchange it? | It's in my bag. Can I have
       another one?
    b: I'm afraid the {colour} one is sold out. We only have it in {other}. | Let me check. There is none left in
       {colour}, only {other}.
    """)
    if t.chance(0.35):
        t.play("""
        a: Hm, {other} is actually nice. I'll take it. | Well, why not. {other} is fine with me.
        b: Wonderful. I'll pack it for you, and you get a small discount. | Very good. Here you are, and sorry for the
           trouble.
        """)
        t.set(ending=t.tell("{a.He} takes a {other} one instead, because the {colour} one is sold out"))
    elif t.chance(0.5):
        t.play("""
        a: I really want the {colour} one. When do you get it again? | No, it has to be {colour}. Can you order it?
        b: On {wrong}. Oh no, that's another model. On {day}. | We get a delivery on {wrong}, but yours comes on {day}.
        a: Fine, then I'll come back on {day}. | All right, I can wait until {day}.
        """)
        t.set(ending=t.tell("The {colour} one is sold out, so {a.he} will come back for a new one on {day}"))
    else:
        t.play("""
        a: I don't like {other}. Could I have my money back? | That doesn't match anything I own. I'd prefer a refund.
        b: Of course. You'll have it on your account by {day}. | Certainly, the bank needs until {day}, though.
        a: That's all right. | Good, I can wait that long.
        """)
        t.set(ending=t.tell("The {colour} one is sold out, so {a.he} will get {a.his} money back by {day}"))
    t.play("""
    b: Can I do anything else for you? | Is there anything else?
    a: No, that was all. You've been very helpful. | No, thank you. Goodbye! | Just tell me where the lift is.
    """)
    if t.chance(0.4):
        t.play("""
        b: Have a nice day! | Goodbye, and come again.
        """)
    return t.tell("{a} returns a {colour} {thing} to the shop, because {fault}. {ending}.")


TROUBLES = (lost, advice, noise, returns)
