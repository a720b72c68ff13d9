"""Dialogues are laid out as the rows of one turn are, and what is learned of them is the model's side."""

from __future__ import annotations

import pytest

from illume_loop.data.layout import KIND_OF, TASKS, longest, sequence_of
from illume_loop.data.rows import Place, Row, Turn
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.sequences import SequenceBuilder

IDS = list(range(36))
PLACE = Place("file", 0)


@pytest.fixture(scope="module")
def sequences(sharp_backend: IllumeBackend) -> SequenceBuilder:
    return sharp_backend.sequences


def test_a_dialogue_of_one_turn_is_what_reading_and_telling_are(sequences: SequenceBuilder) -> None:
    asked, said = "is it a circle ?", "it shows a red circle"
    turns = (Turn("user", f"<image>\n{asked}"), Turn("model", said))
    row = Row("dialogue", PLACE, turns=turns)
    assert sequence_of("instruct", row, [], sequences, [1]) == sequences.read(said, asked)
    row = Row("dialogue", PLACE, turns=(Turn("user", asked), Turn("model", said)))
    assert sequence_of("instruct", row, [], sequences, []) == sequences.tell(said, asked)


def test_an_assessment_with_its_correction_is_two_turns_as_in_the_loop(sequences: SequenceBuilder) -> None:
    asked, said, request = "assess a red circle :", "it shows a blue circle", "make it show a red circle"
    first = (Turn("user", f"<image> {asked}"), Turn("model", said))
    row = Row("dialogue", PLACE, turns=(*first, Turn("user", request), Turn("model", "<image>")))
    made = sequence_of("assess", row, [IDS], sequences, [1])
    assert made == sequences.correct(asked, said, request, IDS)
    assessed = sequences.read(said, asked)
    length = len(assessed.input_ids)
    assert (made.input_ids[:length], made.labels[:length]) == (assessed.input_ids, assessed.labels)
    config, words = sequences.config, sequences.words(request)
    image = [config.begin_image_token_id, *(config.num_text_ids + i for i in IDS), config.end_image_token_id]
    assert made.input_ids[length:] == words + image
    assert made.labels[length:] == [-100] * len(words) + image


def test_pairs_edits_and_texts_are_laid_out_as_everywhere(sequences: SequenceBuilder) -> None:
    pair = Row("pair", PLACE, "a red circle")
    assert sequence_of("caption", pair, [IDS], sequences, [1]) == sequences.read("a red circle")
    for dropped in (False, True):
        drawn = sequences.draw("a red circle", IDS, prompt_dropped=dropped)
        assert sequence_of("text-to-image", pair, [IDS], sequences, [1], dropped=dropped) == drawn
    reconstructed = sequence_of("reconstruct", pair, [IDS], sequences, [1])
    prefix = [*sequences.read_prefix(), sequences.config.begin_image_token_id]
    assert reconstructed.input_ids[: len(prefix)] == prefix
    assert reconstructed.labels[: len(prefix)] == [-100] * len(prefix)
    assert len([label for label in reconstructed.labels if label != -100]) == 37
    edit = Row("edit", PLACE, "make the circle red")
    assert sequence_of("edit", edit, [IDS], sequences, [1]) == sequences.edit("make the circle red", IDS)
    assert sequence_of("text", Row("text", PLACE, "a circle"), [], sequences, []) == sequences.tell("a circle")


def test_only_the_models_turns_are_learned_each_with_its_end(sequences: SequenceBuilder) -> None:
    first = (Turn("user", "<image> is it red ?"), Turn("model", "yes"))
    turns = (*first, Turn("user", "is it blue ?"), Turn("model", "no"))
    made = sequence_of("instruct", Row("dialogue", PLACE, turns=turns), [], sequences, [1])
    learned = [label for label in made.labels if label != -100]
    yes, no = (sequences.words(word) for word in ("yes", "no"))
    assert learned == [*yes, sequences.eos, *no, sequences.eos]
    assert made.input_ids.count(sequences.eos) == 2


def test_slices_are_further_blocks_and_one_block_is_what_it_was(sequences: SequenceBuilder) -> None:
    whole = sequences.read_prefix()
    assert sequences.read_prefix(1) == whole
    assert sequences.read_prefix(3) == [whole[0], *whole[1:], *whole[1:], *whole[1:]]
    turns = (Turn("user", "<image> <image> is it red ?"), Turn("model", "yes"))
    made = sequence_of("instruct", Row("dialogue", PLACE, turns=turns), [], sequences, [10, 2])
    assert made.input_ids.count(sequences.config.image_placeholder_token_id) == 12 * 36


def test_the_longest_sequence_of_a_row_is_that_of_its_longest_task(sequences: SequenceBuilder) -> None:
    assert {KIND_OF[task] for task in TASKS} == {"pair", "edit", "dialogue", "text"}
    pair = Row("pair", PLACE, "a red circle")
    assert longest("pair", pair, 1, [IDS], sequences) == len(sequences.edit("", IDS).input_ids)
    assert longest("pair", pair, 1, [], sequences) == len(sequences.read("a red circle").input_ids)
