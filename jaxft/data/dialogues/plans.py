"""Scenes in which two people plan to do something together."""

from __future__ import annotations

from jaxft.data.dialogues.talk import Talk
from jaxft.data.dialogues.words import CITIES, MORNINGS, listed

# (what they do, two places for it, what somebody takes care of)
MEETINGS = (
    ("play tennis", "the sports club", "the park", "bring the rackets"),
    ("have coffee", "the café on the corner", "the bakery by the station", "reserve a table"),
    ("go for a walk", "the botanical garden", "the river bank", "bring some tea"),
    ("study for the exam", "the city library", "the reading room", "print the old exam papers"),
    ("have dinner", "the Italian restaurant", "the Indian restaurant", "book a table"),
    ("watch the new film", "the old cinema", "the cinema at the mall", "buy the tickets"),
    ("go swimming", "the outdoor pool", "the lake", "bring the sun cream"),
    ("play chess", "the chess club", "the tea house", "bring the board"),
    ("have a picnic", "the castle garden", "the meadow behind the church", "make the sandwiches"),
    ("see the exhibition", "the art museum", "the photo gallery", "get the tickets"),
    ("go climbing", "the climbing hall", "the rocks near the village", "bring the ropes"),
    ("rehearse the duet", "the music school", "the church hall", "copy the notes"),
    ("go bowling", "the bowling alley", "the sports centre", "reserve a lane"),
    ("practise the presentation", "the small meeting room", "the canteen", "bring the laptop"),
    ("fly kites", "the old airfield", "the meadow behind the church", "bring the spare string"),
    ("eat noodles", "the noodle bar", "the canteen", "reserve two seats"),
    ("play badminton", "the school gym", "the community centre", "bring the shuttlecocks"),
    ("buy second-hand books", "the flea market", "the book fair", "bring a big bag"),
)


def meet(t: Talk) -> str:
    do, place, other_place, care = t.pick(MEETINGS)
    t.set(do=do, place=place, other=other_place, care=care)
    t.days("day", "new_day")
    t.hours("hour", "late")
    t.busy("excuse", "reason", t.b)
    t.greet()
    t.play("""
    a: Shall we {do} on {day}? | I was thinking we could {do} this {day}. | Do you feel like meeting on {day} to {do}? |
       How about we {do} on {day}?
    b: I'd love to, but {excuse} on {day}. Does {new_day} suit you? | Oh, {day} is bad, {excuse}. What about {new_day}?
       | Nice idea! Only, {excuse} that day. I'm free on {new_day} though.
    a: {new_day} is fine. Let's say {hour} at {place}. | That works too. Can you be at {place} at {hour}? | No problem,
       then {new_day} at {hour}, at {place}.
    """)
    if t.chance(0.5):
        t.play("""
        b: {hour} is a little early for me, could we make it {late}? | I'd rather meet at {late}, otherwise I have to
           rush. | Could it be {late} instead?
        a: Sure, {late} it is. | Of course, {late} is even better. | No problem, {late} then.
        """)
        t.set(hour=t.words["late"])
    else:
        t.play("""
        b: Isn't {place} closed at the moment? We could go to {other}. | It's always so crowded there. I'd prefer
           {other}. | Hmm, {other} is closer for both of us.
        a: True, let's go there. | You're right, that's better. | Good point, I'll come there.
        """)
        t.set(place=other_place)
    if t.chance(0.5):
        t.play("""
        a: And I'll {care}. | I can {care}. | Leave it to me to {care}.
        b: Great, thank you! | Lovely, see you on {new_day}. | Good, I'm looking forward to it.
        """)
        t.set(carer=t.a)
    else:
        t.play("""
        a: Could you {care}? | Would you mind if I asked you to {care}? | Can you {care}, please?
        b: Of course, I'll do that. | Yes, gladly. | Sure, I won't forget.
        """)
        t.set(carer=t.b)
    return t.tell("""{a} and {b} will {do} at {place} on {new_day} at {hour}, because {reason} on {day}. {carer} will
                  {care}.""")


EVENTS = listed("""
    poetry reading, garden party, piano concert, theatre play, football match, graduation ceremony, art opening,
    cooking evening, quiz night, dance show, book launch, housewarming
""")
MAKE_UP = listed("""
    go dancing, have pizza, go for ice cream, take the dogs out, go to the sauna, go cycling
""")


def decline(t: Talk) -> str:
    t.set(event=t.pick(EVENTS), instead=t.pick(MAKE_UP))
    t.days("day", "wrong", "new_day")
    t.hours("hour", "later")
    t.busy("excuse", "reason", t.b)
    t.greet()
    t.play("""
    a: Are you coming to my {event} on {day}? It starts at {hour}. | My {event} is on {day} at {hour}, and I hope you'll
       be there. | Don't forget my {event} on {day}, it begins at {hour}.
    b: Oh no, wasn't it on {wrong}? | I thought it was on {wrong}! | On {day}? I had {wrong} in my calendar.
    a: No, they moved it by a few days. | I had to change the date, sorry. | It was, until last week.
    b: Then I can't come, {excuse}. I'm so sorry. | What a pity, {excuse}, so I'll miss it. | That's bad, because
       {excuse}. I wish I could change it.
    a: Don't worry, there will be another one. | That's a shame, but I understand. | Oh. Never mind, these things
       happen.
    b: Let me make it up to you. Shall we {instead} on {new_day}? | But I want to see you. We could {instead} on
       {new_day}, my treat. | How about we {instead} on {new_day} instead?
    a: I'd like that! Around {later}? | With pleasure. Does {later} suit you? | Good idea, at {later}?
    b: Yes, {later} is good. | Perfect, I'll pick you up. | That's fine, see you then.
    """)
    return t.tell("""{b} cannot come to {a}'s {event} on {day}, because {reason}. They will {instead} on {new_day} at
                  {later} instead.""")


TRANSPORT = (
    ("train", "the train is too expensive", "book the seats"),
    ("bus", "the bus takes too long", "buy the tickets"),
    ("car", "parking is impossible there", "prepare the sandwiches"),
    ("plane", "flying is bad for the climate", "compare the prices"),
    ("motorbike", "it is too cold for the motorbike", "check the tyres"),
    ("camper van", "the camper van is at the garage", "fill the tank"),
)
TRIPS = listed("""
    a wedding, a conference, a football match, a concert, a long weekend, a trade fair, a marathon, an opera, the
    Christmas market, a job fair
""")


def trip(t: Talk) -> str:
    (mode, against, _), (other, _, care) = t.rng.sample(TRANSPORT, 2)
    t.set(city=t.pick(CITIES), event=t.pick(TRIPS), mode=mode, against=against, other=other, care=care)
    t.days("day", "back")
    t.hours("hour", "late", among=MORNINGS)
    t.greet()
    t.play("""
    a: How are we getting to {city} for {event}? I thought we'd take the {mode}. | About {city}: shall we go to {event}
       by {mode}? | I'm planning our journey to {event} in {city}. By {mode}?
    b: I looked it up, and {against}. What about the {other}? | I'm afraid {against}. I'd take the {other}. | Didn't you
       hear? I think {against}. Let's use the {other}.
    a: Fine, the {other} is all right with me. When do we leave? | Okay, by {other} then. What day? | I hadn't thought
       of that. The {other} it is. When?
    b: On {day}, at {hour} in the morning? | {day} morning at {hour}, and we come back on {back}.
    a: That's too early, I need to drop off the children first. {late}? | Could we leave at {late}? I'm not good in the
       mornings. | I'd rather start at {late}, if you don't mind.
    b: Okay, {late}. Will you {care}, or shall I? | Good, {late} is enough. Who will {care}?
    """)
    if t.chance(0.5):
        t.play("""
        a: I'll do it tonight. | Leave that to me. | I will, I have the time.
        """)
        t.set(carer=t.a)
    else:
        t.play("""
        a: Could you, please? | Would you? My computer is broken. | You, if you don't mind.
        b: Sure, I'll do it tonight. | No problem at all.
        """)
        t.set(carer=t.b)
    if t.chance(0.4):
        t.part()
    return t.tell("""{a} and {b} will go to {event} in {city} by {other}, because {against}. They leave on {day} at
                  {late}, and {carer} will {care}.""")


COURSES = listed("""
    pottery, Spanish, first aid, photography, salsa, sewing, guitar, yoga, drawing, woodwork, sign language, baking
""")


def course(t: Talk) -> str:
    t.set(course=t.pick(COURSES), price=t.pick(("forty", "sixty", "eighty", "ninety", "a hundred")))
    t.days("day", "new_day", "sign_up")
    t.hours("late")
    t.greet()
    t.play("""
    a: The community centre offers a {course} course on {day} evenings. Are you interested? | I want to take a {course}
       course, it's every {day}. Will you join me?
    b: I've always wanted to do that. What does it cost? | Why not! Is it expensive? | That sounds fun. How much is it?
    a: {price} euros for the whole term. | Only {price} euros, and the material is included.
    b: That's fair. But on {day} I never can, my own choir meets then. | Good price. It's just that I work late on
       {day}s. | I can afford that. But {day} is my evening with the children.
    a: There's a second group on {new_day} at {late}. | They do the same course on {new_day}, at {late}. | Then let's
       take the one on {new_day}. It starts at {late}.
    b: {new_day} is perfect. How do we sign up? | That would suit me. Do we have to register?
    a: On the website, until {sign_up}. I'll do it for both of us. | By phone, before {sign_up}. I'll call them for us
       two.
    b: Great, thanks! | Thank you, I'll pay you back. | You're an angel.
    """)
    return t.tell("""{a} and {b} will take a {course} course for {price} euros on {new_day} at {late}, because {b} is
                  busy on {day}. {a} will sign them both up by {sign_up}.""")


PLANS = (meet, decline, trip, course)
