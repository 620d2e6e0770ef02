"""Spoken questions and their answers as text: ``questions.py MATERIALS [--count N]``.

A text LM asks about each of many subjects and answers, as LLaMA-Omni's data were made (arXiv:2409.06666 §2.5): short
and without lists, as one speaks. ``questions.txt`` and ``replies.txt`` hold one a line, line by line together. What was
made before stays; the same command again goes on.
"""

import argparse
import random
import re
import sys
import time
from pathlib import Path

import torch

from lalia.checkpoints import fetch
from lalia.cli.console import progress
from lalia.errors import LaliaError

LM = "smollm2-135m-instruct"
AT_ONCE = 24
SYSTEM = "You are a helpful voice assistant. Answer in one or two short sentences."
SUBJECTS = """
airplanes, algebra, animals, ants, apples, architecture, art, astronomy, atoms, autumn, bananas, baseball, basketball,
bears, bees, bicycles, biology, birds, birthdays, books, bread, bridges, butterflies, cameras, camping, capitals, cars,
castles, cats, chemistry, chess, China, chocolate, cities, climate, clocks, clouds, coffee, colors, computers, cooking,
countries, cows, dancing, deserts, dinosaurs, doctors, dogs, dolphins, dreams, drums, ears, earthquakes, economics,
eggs, Egypt, electricity, elephants, email, energy, engines, England, exercise, eyes, families, farming, fashion, fire,
fish, flowers, football, forests, France, friends, frogs, fruit, games, gardens, geography, geometry, Germany, glass,
gold, grammar, gravity, Greece, guitars, hair, health, hearts, history, holidays, horses, hospitals, hotels, houses,
ice cream, India, insects, inventions, islands, Italy, Japan, jobs, jokes, jungles, kings, kitchens, knots, lakes,
languages, laws, leaves, letters, libraries, light, lions, love, machines, magnets, maps, mathematics, meals, measures,
medicine, memory, metals, Mexico, milk, money, monkeys, months, the moon, mountains, movies, museums, mushrooms, music,
names, nature, neighbors, newspapers, numbers, nurses, oceans, oil, oranges, owls, painting, pandas, paper, Paris,
parks, parties, penguins, phones, photographs, physics, pianos, pilots, pizza, planets, plants, plays, poetry, police,
politics, presidents, queens, radio, rain, rainbows, reading, recipes, rice, rivers, robots, rockets, Rome, roses,
rules, running, Russia, sailing, salt, sand, school, science, seasons, shadows, sharks, sheep, ships, shoes, shopping,
singing, sleep, snakes, snow, soap, soccer, songs, sound, soup, space, Spain, spiders, sports, spring, stars, stories,
storms, students, sugar, summer, the sun, swimming, tea, teachers, teeth, telescopes, television, temperature, tennis,
theater, tigers, time, towns, toys, trains, travel, trees, trucks, the United States, universities, vacations,
vegetables, violins, volcanoes, walking, water, weather, weddings, whales, wheels, wind, windows, winter, wolves, wood,
words, work, writing, yoga, zebras, zoos
"""
ASKED = (
    "What is {}?", "Tell me about {}.", "Why do people like {}?", "What do you know about {}?",
    "Can you tell me a fact about {}?", "How would you explain {} to a child?", "Where can I learn about {}?",
    "What is the best thing about {}?", "Is there anything strange about {}?", "What should I know about {}?",
)  # fmt: skip
_ANSWER = re.compile(r"[A-Z][^\n*#|{}<>\[\]]{8,200}?[.!?](?=\s|$)")


def main() -> None:
    """Read the command line, and ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=600.0, help="of work, at most")
    given = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch(LM)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def reply(turns: list[str], tokens: int, **options: object) -> list[str]:
        talks = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": turn}] for turn in turns]
        texts = tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=True)
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        out = model.generate(**batch, max_new_tokens=tokens, **options)
        return tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)

    subjects = [subject.strip() for subject in SUBJECTS.replace("\n", " ").split(",")]
    files = [given.materials / name for name in ("questions.txt", "replies.txt")]
    done = len(files[0].read_text("utf-8").splitlines()) if files[0].exists() else 0
    until = time.monotonic() + 60 * given.minutes
    with progress("Asking", "questions") as report:
        while done < given.count and time.monotonic() < until:
            draw = random.Random(done)
            torch.manual_seed(done)
            chosen = draw.choices(subjects, k=AT_ONCE)
            asked = [draw.choice(ASKED).format(subject) for subject in chosen]
            wanted = [f"Write one short question that somebody could ask about {subject}." for subject in chosen[::2]]
            own = reply(wanted, 24, do_sample=True, temperature=0.9, top_p=0.95)
            for i, text in enumerate(own):
                found = re.search(r"[A-Z][^\n?\"]{8,80}\?", text)
                asked[2 * i] = found[0] if found else asked[2 * i]
            answers = reply(asked, 56, do_sample=True, temperature=0.5, top_p=0.9)
            pairs = [(a, " ".join(said)) for a, b in zip(asked, answers, strict=True) if (said := sentences(b))]
            for file, column in zip(files, zip(*pairs, strict=True), strict=True):
                with open(file, "a", encoding="utf-8") as out:
                    out.writelines(line + "\n" for line in column)
            done += len(pairs)
            report(min(done, given.count), given.count)


def sentences(answer: str) -> list[str]:
    """The first whole sentences of an answer, two at the most."""
    return [" ".join(s.split()) for s in _ANSWER.findall(answer)[:2]]


if __name__ == "__main__":
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
