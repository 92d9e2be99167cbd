"""Compares names of classes, domains and folders, and turns names into file names."""

import hashlib
import unicodedata

__all__ = ["file_name", "plain_name"]

_LONGEST = 255  # bytes of a file's name, on all common file systems


def plain_name(text: str) -> str:
    r"""Makes names equal that look the same.

    ``"polar bear"`` is one class, whether it is typed with two spaces, with a space at its end,
    with a no-break space, or with a zero-width character in it. The same holds for the two ways
    in which Unicode writes ``"é"``, of which macOS uses one in folder names and Linux the other.
    Upper and lower case stay different.

    Args:
        text: A name.

    Returns:
        The name in Unicode's form NFC, without invisible characters (category Cf), with single
        spaces between its words.

    Example:
        >>> plain_name(" polar \u00a0 bear ")
        'polar bear'
    """
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def file_name(text: str, ending: str = "") -> str:
    """Makes a file's or folder's name that every common file system accepts.

    Args:
        text: What the file is to be called.
        ending: What the name ends with, unchanged, such as an identity or an extension.

    Returns:
        The text with everything replaced by ``_`` but letters, digits and ``+-._``, and with the
        ending. A text that is too long for 255 bytes of UTF-8 is cut, and gets a hash of itself,
        so that two long texts with the same beginning differ.

    Example:
        >>> file_name("art painting/1", ".images")
        'art_painting_1.images'
    """
    safe = "".join(c if c.isalnum() or c in "+-._" else "_" for c in text)
    left = _LONGEST - len(ending.encode())
    if len(safe.encode()) > left:
        mark = "-" + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
        kept = safe.encode()[: left - len(mark)].decode(errors="ignore")
        safe = kept + mark
    return safe + ending
