"""What every scene of the generated dialogues draws on: names, days, hours, excuses and small talk.

An excuse is a pair: how the speaker says it, and how it is told about `{x}` (with `{x.his}`).
"""


def listed(text: str) -> tuple[str, ...]:
    """Return the items of a comma-separated text."""
    return tuple(item.strip() for item in text.split(","))


WOMEN = listed("""
    Anna, Maria, Lena, Nora, Julia, Eva, Clara, Nina, Sofia, Ingrid, Priya, Yuki, Amina, Fatima, Rosa, Elena, Greta,
    Hanna, Ivy, Carmen, Leila, Marta, Olga, Paula, Ruth, Sara, Tessa, Vera, Wanda, Zoe, Mei, Aisha, Bianca, Dora,
    Esther, Freya
""")
MEN = listed("""
    Tom, Paul, Ivan, Omar, Leo, Marek, Ravi, Jonas, Peter, David, Hugo, Kenji, Samir, Luca, Felix, Martin, Oscar,
    Viktor, Adam, Bruno, Carlos, Daniel, Emil, Frank, George, Henrik, Igor, Jamal, Karim, Lars, Mateo, Nils, Pablo,
    Stefan, Tariq, Ben
""")
CITIES = listed("""
    Lisbon, Vienna, Oslo, Prague, Hamburg, Lyon, Dublin, Milan, Porto, Ghent, Bergen, Leeds, Turin, Malmo, Seville,
    Basel
""")
DAYS = listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
EVENINGS = ("five", "half past five", "six", "half past six", "seven", "half past seven", "eight", "half past eight")
MORNINGS = ("eight", "half past eight", "nine", "half past nine", "ten", "half past ten", "eleven", "half past eleven")
MONTHS = listed("January, February, March, April, May, June, September, October, November")

BUSY = (
    ("I have a dentist appointment", "{x} has a dentist appointment"),
    ("I'm working late", "{x} is working late"),
    ("my parents are visiting", "{x}'s parents are visiting"),
    ("I promised to help my brother move", "{x} promised to help {x.his} brother move"),
    ("I'm picking up my aunt from the airport", "{x} is picking up {x.his} aunt from the airport"),
    ("I have an exam", "{x} has an exam"),
    ("the plumber is coming to fix my sink", "the plumber is coming to fix {x}'s sink"),
    ("I have choir practice", "{x} has choir practice"),
    ("I'm taking my cat to the vet", "{x} is taking {x.his} cat to the vet"),
    ("my son has a football match", "{x}'s son has a football match"),
    ("I'm driving my grandmother to the doctor", "{x} is driving {x.his} grandmother to the doctor"),
    ("I'm meeting my landlord", "{x} is meeting {x.his} landlord"),
    ("I'm on the night shift", "{x} is on the night shift"),
    ("my daughter has a piano recital", "{x}'s daughter has a piano recital"),
    ("I have a job interview", "{x} has a job interview"),
    ("I have to finish a report", "{x} has to finish a report"),
    ("I'm babysitting my nephew", "{x} is babysitting {x.his} nephew"),
    ("I have a driving lesson", "{x} has a driving lesson"),
    ("my cousin is getting married", "{x}'s cousin is getting married"),
    ("I'm painting my kitchen", "{x} is painting {x.his} kitchen"),
    ("my new fridge is being delivered", "{x}'s new fridge is being delivered"),
    ("I have a parents' evening at the school", "{x} has a parents' evening at the school"),
    ("I'm on a business trip", "{x} is on a business trip"),
    ("my sister is in town", "{x}'s sister is in town"),
    ("I'm taking my car to the garage", "{x} is taking {x.his} car to the garage"),
    ("I have a yoga class", "{x} has a yoga class"),
)

# What is said first, and the answer. Days, hours and places are mentioned on purpose: they are not the ones to report.
SMALL_TALK = (
    ("How was your weekend?", "Quiet. I slept until ten on Sunday and read half a novel."),
    ("Did you see the match last night?", "Only the end. I fell asleep on the sofa at nine."),
    ("What awful weather today.", "I know, I got soaked on the way to the bus stop this morning."),
    ("Is your knee any better?", "Much better, thanks. I even took the stairs on Monday."),
    ("How is your mother doing?", "She's well, she started swimming every Wednesday."),
    ("Are you still at the office?", "Yes, until five, and the coffee machine is broken again."),
    ("Did the parcel arrive?", "It came on Tuesday, but the box was completely crushed."),
    ("You sound tired.", "The neighbour's dog was barking until three in the morning."),
    ("Have you finished that series?", "Almost, two episodes left. Please don't tell me how it ends."),
    ("How did the cake turn out?", "Burnt on one side, but my colleagues ate all of it on Friday."),
    ("The traffic was terrible today.", "I heard. There was an accident at the bridge around eight."),
    ("I saw your brother at the market.", "Really? He's there every Saturday, buying far too many tomatoes."),
    ("Did you get a haircut?", "Yes, yesterday, and I still have to get used to it."),
    ("How is the new phone?", "The camera is great, but the battery is empty by noon."),
    ("Are you over your cold?", "Nearly. I stayed in bed for the whole of Thursday."),
    ("I finally watched that film.", "The one from the cinema on Sunday? I found it far too long."),
    ("My train was late again.", "Mine too, I stood on the platform for half an hour."),
    ("How are the tomatoes on your balcony?", "Huge. I picked a whole bowl of them on Monday."),
    ("Have you met the new colleague?", "We had lunch on Wednesday, she used to work in a bakery."),
    ("It's so hot today.", "The office is like an oven. I went home at four."),
    ("Is the lift working again?", "No, I carried my shopping up to the sixth floor."),
    ("How was the concert?", "Loud and wonderful, and we only got home at one."),
    ("Did you sleep well?", "Not really, a car alarm went off at five."),
    ("I tried the new bakery this morning.", "Aren't their rolls good? I queue there every Saturday."),
    ("How is your Spanish coming along?", "Slowly. I can order soup and count to twenty."),
    ("Are you still running?", "Only on Tuesdays, it's getting too dark in the evening."),
    ("Your cat was on my balcony again.", "Oh dear, she's been exploring since Sunday."),
    ("I dropped my cup in the kitchen at nine.", "So that was the noise! I thought a shelf had fallen."),
    ("How was the museum?", "Crowded. We were out again by half past two."),
    ("Did you vote yet?", "On my way to work, there was hardly a queue."),
    ("I can hear a drill, where are you?", "In the library, of all places. They are repairing the roof until Friday."),
    ("How's the puppy?", "He ate one of my shoes on Thursday, the expensive ones."),
    ("Any news from your cousin?", "She sent a postcard from the mountains, it snowed there on Monday."),
    ("Have you tried the soup I gave you?", "We had it on Sunday, even the children asked for more."),
)

GREETINGS = ("Hi {y}!", "Hello {y}!", "Hey {y},", "{y}, there you are!", "Good to see you, {y}!", "Hi {y}, it's me.")
TURNING = ("By the way,", "Anyway,", "Listen,", "Actually, there is something else.", "So,", "Right. Now,", "")
CLOSINGS = (
    ("Perfect, thank you!", "You're welcome!"),
    ("Great, see you then!", "See you!"),
    ("Sounds good.", "Great, talk to you soon."),
    ("Thanks a lot, {y}.", "Any time!"),
    ("Wonderful, I'm glad.", "Me too. Bye!"),
    ("All right, that's settled.", "Good. Have a nice day!"),
)
