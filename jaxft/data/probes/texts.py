"""Plain English and neutral prompts, written here: what loss on text and the distance to the base are taken on."""

from __future__ import annotations

PASSAGES = (
    "The baker unlocked the shop before sunrise and lit the oven. By six the first loaves were on the shelf, and "
    "the smell had reached the corner of the street. A woman in a grey coat bought two rolls, as she did every "
    "morning.",
    "Water moves in a circle. It rises from seas and lakes as vapour, cools high above the ground and becomes "
    "clouds. Rain and snow bring it back, and rivers carry it to the sea, where the journey begins again.",
    "When the old bridge was closed, the village lost its shortest way to the market. Farmers drove an hour "
    "around the lake, and the school bus came late. It took three years until the council agreed to build a new "
    "one.",
    "A good map leaves things out. It shows the roads that a driver needs and forgets the trees beside them. "
    "Somebody who walks wants the paths, the wells and the height of the hills, and so needs another map of the "
    "same place.",
    "The company said on Tuesday that it would open a second factory in the north. About two hundred people are "
    "to work there by the end of next year. Local leaders welcomed the plan but asked how it would change traffic "
    "in the town.",
    "Plants turn light into sugar. Their leaves take in air through tiny openings, and their roots send up water. "
    "What they do not need, they release again, and animals breathe it. Without plants there would be little life "
    "on land.",
    "My grandfather kept bees behind the house. He never wore gloves and spoke to them in a low voice. In late "
    "summer we stood at the kitchen table, turned the handle of the drum, and watched the honey run slowly into "
    "the jars.",
    "To repair a flat tyre, take the wheel off and pull out the inner tube. Pump it up and hold it under water: "
    "bubbles show where the hole is. Dry the place, roughen it with sandpaper, and press a patch on for a minute.",
    "The court ruled that the letter could not be used as evidence because nobody knew who had written it. The "
    "lawyer for the family said that she respected the decision. A new hearing will be held in the spring.",
    "Chess was played for centuries before anyone agreed on all its rules. In some places the queen moved one "
    "square only, and games lasted for days. The faster game that we know spread from southern Europe.",
    "The team trained in the rain all week. Their captain had hurt her knee, and the new goalkeeper was only "
    "seventeen. Nobody expected much of them on Saturday, and perhaps that is why they played without fear and "
    "won.",
    "Old photographs fade because light breaks down the dyes in the paper. Museums therefore keep them in dark, "
    "cool rooms and show copies. At home it helps to hang them on a wall that the sun does not reach.",
)

PROMPTS = (
    "Tell me about the sea.",
    "What can I cook with rice and eggs?",
    "Explain how a bicycle works.",
    "Write two sentences about a cat.",
    "Why is the sky blue?",
    "Give me three ideas for a birthday present.",
    "What do people do in a library?",
    "Describe a quiet morning.",
    "How do I plant a tree?",
    "What is a good name for a dog?",
    "Tell me something about the moon.",
    "How can I learn a new language?",
    "What should I pack for a weekend trip?",
    "Explain what a computer program is.",
    "Write a short greeting to a neighbour.",
    "What is the difference between a lake and a river?",
    "How do birds find their way?",
    "List some things that are red.",
    "What does a doctor do?",
    "Why do we sleep?",
    "Describe your favourite season.",
    "How is bread made?",
    "What can you see from a mountain?",
    "Give me advice for a job interview.",
    "Tell me about a famous invention.",
    "How do I clean a window?",
    "What makes a story exciting?",
    "Explain what money is for.",
    "Write one sentence about the future.",
    "What animals live in the forest?",
    "How can I save water at home?",
    "What is music?",
)
