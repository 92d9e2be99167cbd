import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gga_lightning.data.names import file_name, plain_name

BEARS = [
    "polar bear",
    " polar bear",
    "polar  bear",
    "polar\u00a0bear",
    "polar\tbear\n",
    "pol\u200bar bear",
]


@pytest.mark.parametrize("name", BEARS)
def test_spaces_and_invisible_characters_make_no_other_name(name):
    assert plain_name(name) == "polar bear"


def test_both_unicode_forms_are_one_name():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert plain_name(composed) == plain_name(decomposed)


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("1", "01"), ("a b", "ab"), ("+1", "-1")]
)
def test_names_that_look_different_stay_different(one, other):
    assert plain_name(one) != plain_name(other)


@given(st.text(max_size=400), st.sampled_from(["", ".images", "-0123456789abcdef"]))
def test_file_names_are_short_and_have_no_separators(text, ending):
    name = file_name(text, ending)
    assert len(name.encode()) <= 255
    assert name.endswith(ending)
    assert not set(name) & set("/\\:\0 \n")


def test_long_names_with_the_same_beginning_differ():
    names = {file_name("ü" * 300 + end, ".images") for end in ("a", "b", "")}
    assert len(names) == 3


def test_a_folder_name_that_is_no_unicode_becomes_a_file_name():
    assert file_name(b"caf\xe9".decode(errors="surrogateescape")) == "caf_"
