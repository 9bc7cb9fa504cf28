"""The words that the probes are made of."""

from __future__ import annotations

from jaxft.data.dialogues.words import listed

NOUNS = listed("""
    apple, river, chair, window, garden, pencil, cloud, bridge, candle, mirror, basket, ladder, button, island, kitchen,
    hammer, letter, pillow, rabbit, station, ticket, tunnel, violin, wallet
""")
THINGS = listed("""
    film, dinner, concert, hotel, book, trip, service, lesson, play, picnic, museum, meeting, train ride, new phone,
    coffee, garden party, haircut, cake
""")
LIKED = listed("""
    wonderful, a delight from start to finish, better than I had hoped, simply lovely, great fun, worth every penny,
    the best I have had in years, a joy, a happy surprise, excellent
""")
DULL = listed("""
    awful, a waste of time, worse than I had feared, terribly boring, a mistake, not worth the money,
    the worst I have had in years, a disaster, a sad letdown, dreadful
""")
TRUE = (
    "Fish live in water.", "The sun is hot.", "A week has seven days.", "Ice is frozen water.", "Birds have feathers.",
    "Cows eat grass.", "Spiders have eight legs.", "The moon goes around the earth.", "Lemons taste sour.",
    "A triangle has three sides.", "Bees make honey.", "Winter is colder than summer.", "Wood comes from trees.",
    "A year has twelve months.", "People breathe air.", "Elephants are bigger than mice.", "Snow is white.",
    "Bread is made from flour.", "A dozen is twelve.", "Planes can fly.", "The heart pumps blood.",
    "Paper burns.", "Rain falls from clouds.", "Doctors treat sick people.", "Cats are animals.",
    "Glass can break.", "Fire needs air.", "Milk comes from cows.", "An hour has sixty minutes.",
    "Whales live in the sea.",
)  # fmt: skip
FALSE = (
    "Fish have wings and fur.", "The sun is made of ice.", "A week has nine days.", "Stones are softer than wool.",
    "Dogs lay eggs.", "Cows eat cars.", "Spiders have two legs.", "The moon is a kind of cheese.",
    "Sugar tastes salty.",
    "A triangle has five sides.", "Bees make milk.", "Summer is colder than winter.", "Wood comes from fish.",
    "A year has twenty months.", "People breathe under water.", "Mice are bigger than elephants.", "Snow is black.",
    "Bread is made from sand.", "A dozen is forty.", "Trains sail on the sea.", "The heart grinds food.",
    "Water burns well.", "Rain falls up from the ground.", "Chairs can talk.", "Cats are plants.",
    "Iron floats on water like cork.", "Trees walk at night.", "Milk comes from stones.", "An hour has ten minutes.",
    "Horses live in the sea.",
)  # fmt: skip
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Portugal": "Lisbon", "Austria": "Vienna",
    "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw", "Hungary": "Budapest",
    "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi", "India": "New Delhi", "Iran": "Tehran",
    "Iraq": "Baghdad", "Thailand": "Bangkok", "Denmark": "Copenhagen", "Finland": "Helsinki", "Belgium": "Brussels",
    "Argentina": "Buenos Aires", "Chile": "Santiago", "Turkey": "Ankara",
}  # fmt: skip
AGREEMENTS = (
    ("The dogs in the yard", "bark", "barks"), ("The keys to the old door", "are", "is"), ("She", "walks", "walk"),
    ("The boy with the red shoes", "runs", "run"), ("My parents", "live", "lives"),
    ("The box of pencils", "was", "were"),
    ("Every child", "has", "have"), ("The birds above the roof", "sing", "sings"), ("He", "does", "do"),
    ("The teacher of the twins", "smiles", "smile"), ("These two books", "were", "was"), ("I", "am", "is"),
    ("The cat and the mouse", "sleep", "sleeps"), ("Nobody", "knows", "know"),
    ("The windows of the house", "need", "needs"),
    ("We", "have", "has"), ("The girls next door", "play", "plays"), ("It", "seems", "seem"), ("They", "go", "goes"),
    ("The price of the tickets", "rises", "rise"), ("Our neighbour", "drives", "drive"), ("You", "look", "looks"),
    ("The leaves on that tree", "fall", "falls"), ("The man behind the counters", "waits", "wait"),
)  # fmt: skip
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("early", "late"), ("open", "closed"), ("rich", "poor"),
    ("happy", "sad"), ("light", "dark"), ("old", "young"), ("hard", "soft"), ("full", "empty"), ("wet", "dry"),
    ("loud", "quiet"), ("strong", "weak"), ("above", "below"), ("before", "after"), ("high", "low"), ("near", "far"),
    ("clean", "dirty"), ("day", "night"), ("win", "lose"), ("thick", "thin"), ("push", "pull"), ("always", "never"),
)  # fmt: skip
