"""Scenes at work, at school, on the telephone, and over a sale."""

from __future__ import annotations

from jaxft.data.dialogues.talk import Person, Talk
from jaxft.data.dialogues.words import MORNINGS, listed

# (who answers, the appointment, what to bring, as "your ..." and "... ")
APPOINTMENTS = (
    ("dental check-up", "insurance card"),
    ("eye test", "old glasses"),
    ("haircut", "voucher"),
    ("passport appointment", "birth certificate"),
    ("driving test", "identity card"),
    ("massage", "towel"),
    ("tax consultation", "bank statements"),
    ("vaccination", "vaccination card"),
    ("guitar lesson", "music book"),
    ("flat viewing", "proof of income"),
    ("blood test", "last results"),
    ("car inspection", "car papers"),
    ("passport photo session", "dark jacket"),
    ("cooking class", "apron"),
)


def appointment(t: Talk) -> str:
    what, bring = t.pick(APPOINTMENTS)
    t.staff("Receptionist")
    t.set(what=what, bring=bring)
    t.days("day", "offer", "new_day")
    t.hours("offered", "hour", "new_hour", among=MORNINGS)
    t.busy("excuse", "reason", t.a)
    t.play("""
    b: Good morning, how can I help you? | Hello, what can I do for you? | Good afternoon, reception speaking.
    a: Good morning, {a} here. I have a {what} on {day} at {hour}, but {excuse}. | Hello, my name is {a}. It's about my
       {what} on {day} at {hour}. Unfortunately {excuse}.
    b: I see. Would you like to cancel it? | That's no problem. Shall I cancel it for you?
    a: No, I'd just like a different day. | I'd rather move it, if possible. | Please don't. Is there anything else that
       week?
    b: Let me see. I have {offer} at {offered}. | One moment. There is something on {offer}, at {offered}.
    a: That's when I take the children to school. Do you have anything later? | I'm afraid {offer} is difficult as well.
       | {offer} is not good either, I work all day.
    b: Then I can only offer {new_day} at {new_hour}. | What about {new_day} at {new_hour}? Somebody has cancelled.
    a: I'll take it. | Perfect, that suits me. | Yes, please, that's ideal.
    b: Good. Please don't forget your {bring}. | It's in the book. And bring your {bring}, please.
    """)
    if t.chance(0.7):
        t.play("""
        a: I'll remember. Thank you for your help. | I will. Goodbye! | Of course. Have a good day.
        """)
    return t.tell("""{a} moves {a.his} {what} from {day} to {new_day} at {new_hour}, because {reason} on {day}. {a.He}
                  has to bring {a.his} {bring}.""")


TOPICS = listed("""
    essay on the French Revolution, report on bees, poem analysis, lab report, history project, book review, essay
    on renewable energy, paper on Roman roads, term paper on inflation, presentation on volcanoes, geometry
    homework, essay on modern art
""")
SETBACKS = (
    ("I had the flu all week", "{x} had the flu"),
    ("my computer crashed", "{x}'s computer crashed"),
    ("the library was closed", "the library was closed"),
    ("I had to look after my little brother", "{x} had to look after {x.his} little brother"),
    ("my notes got lost on the bus", "{x} lost {x.his} notes on the bus"),
    ("I was at a tournament", "{x} was at a tournament"),
    ("my grandmother was in hospital", "{x}'s grandmother was in hospital"),
    ("we moved house", "{x}'s family moved house"),
)


def extension(t: Talk) -> str:
    said, told = t.pick(SETBACKS)
    t.b = Person(
        t.pick(("Professor Lind", "Mr. Okafor", "Ms. Brandt", "Mrs. Moreau", "Mr. Silva", "Dr. Tanaka")), "", "", ""
    )
    t.set(
        b=t.b, topic=t.pick(TOPICS), said=said, told=told.format(x=t.a), pages=t.pick(("two", "three", "four", "five"))
    )
    t.days("due", "draft", "asked", "final", ordered=True)
    t.play("""
    a: Excuse me, {b}, may I ask you something about the {topic}? | {b}, do you have a moment? It's about my {topic}.
    b: Of course, {a}, sit down. Is there a problem? | Yes, {a}, what is it? | Certainly. Have you started yet?
    a: It's due on {due}, but {said}, so I've hardly begun. | I won't finish it by {due}. You see, {said}.
    b: I'm sorry to hear that. How much have you written? | That's unfortunate. How far did you get?
    a: Just {pages} pages. Could I hand it in on {asked}? | About {pages} pages so far. Would {asked} be possible?
    b: I'm away on {asked}. You can have until {final}. | I can't read it then anyway. Let's say {final}.
    a: That would be wonderful, thank you! | That's more than I hoped for. | Thank you, that helps me a lot.
    b: But I want to see an outline by {draft}. | On one condition: you show me an outline on {draft}.
    a: You'll get it, I promise. | That's fair, I'll send it to you. | No problem at all.
    """)
    if t.chance(0.6):
        t.play("""
        b: Good. And save your work this time! | Then good luck. | Fine. See you in class.
        """)
    return t.tell("""{a} cannot finish {a.his} {topic} by {due}, because {told}. {b} gives {a.him} until {final} but
                  wants to see an outline by {draft}.""")


SALES = (
    ("bicycle", "the brakes are worn"),
    ("sofa", "there is a stain on one cushion"),
    ("piano", "it is out of tune"),
    ("fridge", "the handle is loose"),
    ("desk", "one drawer is stuck"),
    ("camera", "the lens is scratched"),
    ("washing machine", "it is eight years old"),
    ("bookshelf", "a board is missing"),
    ("pram", "one wheel wobbles"),
    ("record player", "it needs a new needle"),
    ("canoe", "it needs new paint"),
    ("carpet", "it has faded in the sun"),
)


def sale(t: Talk) -> str:
    thing, defect = t.pick(SALES)
    prices = t.rng.sample(("forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 3)
    order = sorted(prices, key=("forty", "fifty", "sixty", "seventy", "eighty", "ninety").index)
    t.set(thing=thing, defect=defect, low=order[0], final=order[1], high=order[2])
    t.days("day", "new_day")
    t.hours("hour", among=MORNINGS)
    t.greet(chat=0.3)
    t.play("""
    a: I saw your advert. Is the {thing} still for sale? | Do you still have the {thing} from the notice board?
    b: Yes, it is. I want {high} euros for it. | It is. I'm asking {high} euros. | Sure, for {high} euros.
    a: Is it in good condition? | That's quite a lot. Is anything wrong with it? | How old is it? Does it work?
    b: It works, but to be honest, {defect}. | I have to admit that {defect}. Otherwise it's perfect.
    a: Then I'd give you {low} euros. | In that case I can only offer {low}. | Hm. Would you take {low}?
    b: That's too little. {final}, and it's yours. | I can't go that low. Let's meet at {final}. | {final}, that's my
       last word.
    a: Agreed. Can I fetch it on {day}? | All right, {final}. I could come on {day}.
    b: I'm out on {day}. Come on {new_day} at {hour} in the morning. | {day} is bad, but {new_day} is fine, at {hour} in
       the morning.
    a: Good, I'll bring my brother to help carry. | I'll be there, with cash. | See you on {new_day}, then.
    """)
    return t.tell("""{a} buys {b}'s {thing} for {final} euros instead of {high}, because {defect}. {a.He} will collect
                  it on {new_day} at {hour}.""")


TASKS = (
    ("the sales report", "check the numbers", "write the conclusion"),
    ("the slides for the client", "draw the charts", "write the text"),
    ("the new website", "choose the photos", "test the forms"),
    ("the budget", "collect the invoices", "do the sums"),
    ("the newsletter", "write the interview", "correct the spelling"),
    ("the user manual", "translate it", "make the drawings"),
    ("the job advert", "ask for the salary", "write the requirements"),
    ("the grant proposal", "describe the project", "plan the costs"),
    ("the product video", "record the voice", "cut the scenes"),
    ("the annual review", "interview the staff", "sum up the results"),
)
PRESSURE = (
    ("the client moved the meeting", "the client moved the meeting"),
    ("the boss is leaving early", "the boss is leaving early"),
    ("the printer needs a day", "the printer needs a day"),
    ("the board meets sooner", "the board meets sooner"),
    ("the office is closed for the holiday", "the office is closed for the holiday"),
    ("our partner asked for it", "their partner asked for it"),
)


def work(t: Talk) -> str:
    project, one, two = t.pick(TASKS)
    said, told = t.pick(PRESSURE)
    if t.chance(0.5):
        one, two = two, one
    t.set(project=project, one=one, two=two, said=said, told=told)
    t.days("review", "new", "old", ordered=True)
    t.hours("hour", among=MORNINGS)
    t.greet()
    t.play("""
    a: How far are you with {project}? | We need to talk about {project}. | Have you looked at {project} yet?
    b: Not very far, but we have until {old}, don't we? | I haven't begun. It's for {old}, isn't it?
    a: Not any more, {said}. It has to be ready by {new}. | I'm afraid it's {new} now, because {said}.
    b: Oh no. Then we should share the work. | That's tight! Can you help me? | Already? I can't do that alone.
    a: I'll {two}, and you {one}? | Let me {two}. You could {one}.
    b: I'd rather do it the other way round, I have no data for that. | Can we swap? You're better at that part.
    a: If you like. | Okay, we swap. | Sure, the other way round is fine.
    b: When do we put it together? | Good. And when do we meet to go through it?
    a: On {review} at {hour}, in my office. | Let's meet on {review} at {hour}.
    """)
    if t.chance(0.6):
        t.play("""
        b: I'll be there. | Fine. I'll need a lot of coffee. | Okay, then I'd better start now.
        """)
    return t.tell("""{a} and {b} have to finish {project} by {new} instead of {old}, because {told}. {a} will {one}, {b}
                  will {two}, and they will meet on {review} at {hour}.""")


AFFAIRS = (appointment, extension, sale, work)
